"""The work of each stage as its settings imply it."""

from __future__ import annotations

from pathlib import Path

from cai.config import (
    Config,
    EvaluateConfig,
    FeedbackConfig,
    HelpfulConfig,
    PaperMode,
    PMConfig,
    ReviseConfig,
    RLConfig,
    SFTConfig,
)
from cai.data.pairs import read_pairs
from cai.data.records import Comparison
from cai.pipeline.stage import Work

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
    n = c.examples + c.demonstrations + 3 * c.comparisons if c.fine_tune and not c.prepared else 0
    trained = int(n * 3 * PROMPT * c.optimizer.epochs)
    return Work(n, 0, c.gate_prompts * 48, trained)


def revise(config: Config) -> Work:
    """Count what the revise stage does."""
    c = config.node("revise", ReviseConfig)
    steps = c.prompts * c.rounds * (2 if c.critique else 1)
    per_step = (c.critique_tokens + c.reply_tokens) // 2 if c.critique else c.reply_tokens
    context = PROMPT * (3 + 4 * c.few_shots)
    sampled = c.prompts * c.reply_tokens + steps * per_step
    return Work(c.prompts, c.prompts * PROMPT + steps * context, sampled, 0)


def sft(config: Config) -> Work:
    """Count what the sft stage does."""
    c, r = config.node("sft", SFTConfig), config.node("revise", ReviseConfig)
    rounds = min(c.up_to_round, r.rounds) if c.revisions.value == "all" else 1
    n = int(r.prompts * rounds * (1 + c.helpful_per_revision))
    return Work(n, 0, 0, int(n * 2 * PROMPT * c.optimizer.epochs))


def feedback(config: Config) -> Work:
    """Count what the feedback stage does."""
    c = config.node("feedback", FeedbackConfig)
    principles = len(config.constitution.comparison) if c.principles.value == "ensemble" else 1
    questions = (c.prompts + 64) * principles * (2 if c.swap else 1)
    length = PROMPT * 4 * (1 + c.few_shots)
    chains = questions * c.chains if c.cot else 0
    read = questions * length + chains * (length + c.chain_tokens)
    return Work(c.prompts, read, c.prompts * 2 * c.reply_tokens + chains * c.chain_tokens, 0)


def pm(config: Config) -> Work:
    """Count what the pm stage does."""
    c, f = config.node("pm", PMConfig), config.node("feedback", FeedbackConfig)
    pairs = c.helpful_pairs + f.prompts
    length = 3 * PROMPT
    trained = int(pairs * length * c.optimizer.epochs)
    if c.pretrain:
        found = read_pairs(Path(c.pretrain)).values()
        pairs += len(found)
        trained += sum(map(_tokens, found))
    return Work(pairs, 2 * 60 * length, 0, trained * c.members)


def _tokens(pair: Comparison) -> int:
    """Guess the tokens of a comparison from its characters."""
    talk = sum(len(turn.text) for turn in pair.prompt.conversation)
    return (talk + len(pair.a) + len(pair.b)) // CHARACTERS


def rl(config: Config) -> Work:
    """Count what the rl stage does."""
    c = config.node("rl", RLConfig)
    replies = c.iterations * c.rollouts
    length = PROMPT + c.reply_tokens
    return Work(
        replies, 4 * replies * length, replies * c.reply_tokens, 2 * c.epochs * replies * length
    )


def evaluate(config: Config) -> Work:
    """Count what the evaluate stage does."""
    c = config.node("evaluate", EvaluateConfig)
    replies = 3 * (3 + c.snapshots) * c.prompts * c.samples
    length = PROMPT + c.reply_tokens
    judged = 3 * c.prompts * 2 * 4 * PROMPT if c.constitution_judge else 0
    read, sampled = _paper_tests(c) if c.paper_tests else (0, 0)
    asked = 3 * 20 * 3 * PROMPT if c.persona else 0
    rated = RATED * (c.ratings_rows or 38_961) if c.ratings else 0
    greedy = 3 * min(c.prompts, 64) if c.ratings else 0
    return Work(
        replies,
        (4 * replies + 2 * greedy) * length + judged + read + asked,
        (replies + greedy) * c.reply_tokens + sampled,
        int(rated * c.regression.epochs),
    )


def _paper_tests(c: EvaluateConfig) -> tuple[int, int]:
    """Count what the paper's tests read and sample, for three systems and two PMs."""
    modes = c.paper_modes
    rows = sum(min(n, c.paper_rows or n) for n in PAPER_ROWS)
    chains = 5 if PaperMode.cot_5 in modes else int(PaperMode.cot in modes)
    plain = (PaperMode.zero_shot in modes) + (PaperMode.few_shot in modes)
    passes = 3 * (plain + 2 * chains) + 2 * (PaperMode.pm in modes)
    return rows * passes * 4 * PROMPT, rows * 3 * chains * c.paper_chain_tokens
