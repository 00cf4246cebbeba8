"""The work of each stage as its settings imply it."""

from __future__ import annotations

from pathlib import Path

from cai.config import (
    Config,
    DataSource,
    EvaluateConfig,
    FeedbackConfig,
    HelpfulConfig,
    HelpfulSource,
    JudgeConfig,
    JudgeMethod,
    JudgeSource,
    Method,
    ModelSource,
    PaperMode,
    PaperTestsConfig,
    PMConfig,
    Policy,
    Quantization,
    ReviseConfig,
    RLConfig,
    SFTConfig,
)
from cai.data.pairs import read_pairs
from cai.data.records import Comparison
from cai.pipeline.stage import Holds, Work

PROMPT = 70
"""Tokens of a typical prompt; requests and comparisons are counted as multiples of it."""
PAPER_ROWS = (438, 254, 287)
"""Questions of the paper's tests."""
RATED = 500
"""Tokens of a rated conversation."""
CHARACTERS = 4
"""Of a token, in English."""


def helpful(config: Config) -> Work:
    """Count what the helpful stage does."""
    c = config.node("helpful", HelpfulConfig)
    learns = c.fine_tune and not c.prepared
    n = c.examples + c.demonstrations + 3 * c.comparisons if learns else 0
    trained = int(n * 3 * PROMPT * c.epochs)
    tuned = int(c.fine_tune)
    holds = Holds(tuned, int(learns), optimizer=c.optimizer.kind, length=3 * PROMPT, read=0.5,
                  rows=c.gate_prompts)  # fmt: skip
    return Work(n, 0, c.gate_prompts * 48, trained, holds)


def revise(config: Config) -> Work:
    """Count what the revise stage does."""
    c = config.node("revise", ReviseConfig)
    steps = c.prompts * c.rounds * (2 if c.critique else 1)
    per_step = (c.critique_tokens + c.reply_tokens) // 2 if c.critique else c.reply_tokens
    context = PROMPT * (3 + 4 * c.few_shots)
    sampled = c.prompts * c.reply_tokens + steps * per_step
    holds = Holds(1, length=context + c.reply_tokens, rows=c.prompts)
    return Work(c.prompts, c.prompts * PROMPT + steps * context, sampled, 0, holds)


def sft(config: Config) -> Work:
    """Count what the sft stage does."""
    c, r = config.node("sft", SFTConfig), config.node("revise", ReviseConfig)
    rounds = min(c.up_to_round, r.rounds) if c.revisions.value == "all" else 1
    n = int(r.prompts * rounds * (1 + c.helpful_per_revision))
    asked = n if c.helpful_source is HelpfulSource.model else 0
    whole = int(c.full_finetuning)
    holds = Holds(2 - whole, 1 - whole, whole, optimizer=c.optimizer.kind, length=2 * PROMPT,
                  read=0.5, rows=asked)  # fmt: skip
    return Work(n, 0, 0, int(n * 2 * PROMPT * c.epochs), holds)


def feedback(config: Config) -> Work:
    """Count what the feedback stage does."""
    c = config.node("feedback", FeedbackConfig)
    s = c.sampling
    principles = len(config.constitution.comparison) if c.principles.value == "ensemble" else 1
    both = c.swap and c.asked_by is Method.choice  # others read a pair once for both orders
    questions = (c.prompts + 64) * principles * (2 if both else 1)
    length = PROMPT * 4 * (1 + c.few_shots)
    chains = questions * s.chains if c.cot else 0
    read = questions * length + chains * (length + s.chain_tokens)
    sampled = c.prompts * 2 * s.reply_tokens + chains * s.chain_tokens
    longest = max(PROMPT + s.reply_tokens, length + s.chain_tokens if c.cot else 0)
    return Work(c.prompts, read, sampled, 0, Holds(2, length=longest, rows=2 * c.prompts))


def pm(config: Config) -> Work:
    """Count what the pm stage does."""
    c, f = config.node("pm", PMConfig), config.node("feedback", FeedbackConfig)
    pairs = c.helpful_pairs + f.prompts
    length = 3 * PROMPT
    trained = int(pairs * length * c.epochs)
    if c.pretrain:
        read = read_pairs(Path(c.pretrain), "pm.pretrain", config.data.bad_rows)
        found = [pair.record for pair in read]
        pairs += len(found)
        trained += sum(map(_tokens, found))
    whole = int(c.full_finetuning)
    adapters = 0 if whole else models(c)
    holds = Holds(adapters, 1 - whole, whole, optimizer=c.optimizer.kind, length=length)
    return Work(pairs, 2 * 60 * length, 0, trained * c.ensemble.members, holds)


def models(c: PMConfig) -> int:
    """Count the preference models."""
    return c.ensemble.members * (2 if c.holdout_twin else 1)


def _tokens(pair: Comparison) -> int:
    """Guess the tokens of a comparison from its characters."""
    talk = sum(len(turn.text) for turn in pair.prompt.conversation)
    return (talk + len(pair.a) + len(pair.b)) // CHARACTERS


def rl(config: Config) -> Work:
    """Count what the rl stage does."""
    c = config.node("rl", RLConfig)
    replies = c.iterations * c.rollout.prompts
    length = PROMPT + c.rollout.reply_tokens
    pms = models(config.node("pm", PMConfig))
    whole = config.node("pm", PMConfig).full_finetuning
    ppo = config.recipe.policy is Policy.ppo
    full = int(c.full_finetuning)
    holds = Holds(
        adapters=2 - 2 * full + (1 + (0 if whole else pms) if ppo else 0),
        trained=(2 if ppo else 1) - full,
        whole=full,
        copies=full + (pms if ppo and whole else 0),  # the reference, and the preference models
        optimizer=c.optimizer.kind if ppo else c.dpo.optimizer.kind,
        undo=ppo,
        length=length if ppo else 3 * PROMPT,
        read=c.rollout.reply_tokens / length,
        rows=c.rollout.prompts if ppo else 0,
    )
    return Work(
        replies,
        4 * replies * length,
        replies * c.rollout.reply_tokens,
        2 * c.ppo.epochs * replies * length,
        holds,
    )


JUDGED = 60
"""Held-out comparisons of each axis that the judge is measured on."""
LEARNT = 600
"""Comparisons that the built-in data keep for the judge."""


def _ships(config: Config) -> bool:
    """Tell whether directions of this model and these data ship with the package."""
    builtin = config.data.source is DataSource.builtin and config.data.folder is None
    whole = config.model.quantization is Quantization.none
    return builtin and whole and config.model.source is ModelSource.embedded


def judge(config: Config) -> Work:
    """Count what the judge stage does."""
    c = config.node("judge", JudgeConfig)
    length = 3 * PROMPT
    read = 2 * JUDGED * length
    if c.source is not JudgeSource.labels:
        return Work(0, read, 0, 0, Holds(length=length))
    pairs = min(2 * c.pairs, LEARNT) if c.pairs else LEARNT
    if c.method is JudgeMethod.readout:
        learnt = 0 if c.pairs is None and _ships(config) else pairs * length
        return Work(pairs, read + learnt, 0, 0, Holds(length=length))
    holds = Holds(2, 1, optimizer=c.adapter.optimizer.kind, length=length)
    return Work(pairs, 2 * read, 0, int(pairs * length * c.adapter.epochs), holds)


def evaluate(config: Config) -> Work:
    """Count what the evaluate stage does."""
    c = config.node("evaluate", EvaluateConfig)
    replies = 3 * (3 + c.baselines.snapshots) * c.prompts * c.samples
    length = PROMPT + c.reply_tokens
    judged = 3 * c.prompts * 2 * 4 * PROMPT if c.opinions.constitution else 0
    read, sampled = _paper_tests(c.paper_tests) if c.paper_tests.folder else (0, 0)
    asked = 3 * 20 * 3 * PROMPT if c.persona else 0
    rated = RATED * (c.harmfulness.rows or 38_961) if c.harmfulness.ratings else 0
    greedy = 3 * min(c.prompts, 64) if c.harmfulness.ratings else 0
    once = c.reply_tokens + PROMPT // 3  # three systems' replies to one prompt are read together
    return Work(
        replies,
        4 * replies * once + 2 * greedy * length + judged + read + asked,
        (replies + greedy) * c.reply_tokens + sampled,
        int(rated * c.harmfulness.epochs),
        _held(config, length),
    )


def _held(config: Config, length: int) -> Holds:
    """Count what is in memory while systems reply, are scored and predict ratings."""
    c, pm = config.node("evaluate", EvaluateConfig), config.node("pm", PMConfig)
    pms, trained = models(pm), int(bool(c.harmfulness.ratings))
    return Holds(
        adapters=4 + trained + (0 if pm.full_finetuning else pms),
        trained=trained,
        copies=pms if pm.full_finetuning else 0,
        optimizer=c.harmfulness.optimizer.kind,
        length=length,
        rows=3 * c.prompts * c.samples,
    )


def _paper_tests(c: PaperTestsConfig) -> tuple[int, int]:
    """Count what the paper's tests read and sample, for three systems and two PMs."""
    modes = c.modes
    rows = sum(min(n, c.rows or n) for n in PAPER_ROWS)
    chains = 5 if PaperMode.cot_5 in modes else int(PaperMode.cot in modes)
    plain = (PaperMode.zero_shot in modes) + (PaperMode.few_shot in modes)
    passes = 3 * (plain + 2 * chains) + 2 * (PaperMode.pm in modes)
    return rows * passes * 4 * PROMPT, rows * 3 * chains * c.chain_tokens
