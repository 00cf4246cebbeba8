"""What a stage will take on this machine: counted tokens, and a two-second measurement."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from cai.config import Config, EvaluateConfig, PaperMode
from cai.data.pairs import read_pairs
from cai.data.records import Comparison
from cai.lm.generate import Sampling, generate
from cai.lm.load import LanguageModel, load_model
from cai.lm.packing import Tree, hidden_states, pack
from cai.pipeline import Step

PROMPT = 70
"""Tokens of a typical prompt; requests and comparisons are counted as multiples of it."""
PAPER_ROWS = (438, 254, 287)
"""Questions of the paper's tests."""
RATED = 500
"""Tokens of a rated conversation."""
TRAINING = 3.5
"""Time of a forward and backward pass through an adapter, in forward passes."""
CHARACTERS = 4
"""Of a token, in English."""


@dataclass(frozen=True)
class Work:
    """Tokens that a stage reads, samples and trains on."""

    prompts: int
    read: int
    sampled: int
    trained: int


@dataclass(frozen=True)
class Cost:
    """Work in minutes of this machine."""

    prompts: int
    tokens: int
    minutes: float


@dataclass(frozen=True)
class Speed:
    """Tokens per second."""

    read: float
    sampled: float


def estimate(steps: Sequence[Step], config: Config) -> dict[str, Cost]:
    """Estimate the stages of a plan that are still to be made."""
    if not steps:
        return {}
    speed = measure(load_model(config.model, config.hardware))
    costs = {}
    for step in steps:
        work = WORK[step.stage.name](config)
        seconds = work.read / speed.read + work.sampled / speed.sampled
        seconds += TRAINING * work.trained / speed.read
        tokens = work.read + work.sampled + work.trained
        costs[step.stage.name] = Cost(work.prompts, tokens, seconds / 60)
    return costs


def measure(model: LanguageModel) -> Speed:
    """Read and sample for about a second each; a first pass that only warms up does not count."""
    network, ids, rows, new = model.network, list(range(3, 131)), 16, 6
    packed = pack([Tree(ids, [ids[:1]])] * 4).to(model.device)

    def read() -> None:
        with torch.inference_mode():
            hidden_states(network, packed)

    def sample() -> None:
        prompts = [ids[:32]] * rows
        generate(network, prompts, range(rows), Sampling(new), frozenset(), batch_size=rows)

    return Speed(packed.ids.numel() / _seconds(read), rows * new / _seconds(sample))


def _seconds(work: Callable[[], None]) -> float:
    """Return the median time of as many calls as fit in a second, at least one after the first."""
    work()
    times: list[float] = []
    while not times or sum(times) < 1:
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _helpful(config: Config) -> Work:
    c = config.helpful
    assert c is not None
    n = c.examples + 6 * c.demonstrations if c.fine_tune else 0
    trained = int(n * 2.5 * PROMPT * c.optimizer.epochs)
    return Work(n, 0, c.gate_prompts * 48, trained)


def _revise(config: Config) -> Work:
    c = config.revise
    assert c is not None
    steps = c.prompts * c.rounds * (2 if c.critique else 1)
    per_step = (c.critique_tokens + c.reply_tokens) // 2 if c.critique else c.reply_tokens
    context = PROMPT * (3 + 4 * c.few_shots)
    sampled = c.prompts * c.reply_tokens + steps * per_step
    return Work(c.prompts, c.prompts * PROMPT + steps * context, sampled, 0)


def _sft(config: Config) -> Work:
    c, r = config.sft, config.revise
    assert c is not None
    assert r is not None
    rounds = min(c.up_to_round, r.rounds) if c.revisions.value == "all" else 1
    n = int(r.prompts * rounds * (1 + c.helpful_per_revision))
    return Work(n, 0, 0, int(n * 2 * PROMPT * c.optimizer.epochs))


def _feedback(config: Config) -> Work:
    c = config.feedback
    assert c is not None
    principles = len(config.constitution.comparison) if c.principles.value == "ensemble" else 1
    questions = (c.prompts + 64) * principles * (2 if c.swap else 1)
    length = PROMPT * 4 * (1 + c.few_shots)
    chains = questions * c.chains if c.cot else 0
    read = questions * length + chains * (length + c.chain_tokens)
    return Work(c.prompts, read, c.prompts * 2 * c.reply_tokens + chains * c.chain_tokens, 0)


def _pm(config: Config) -> Work:
    c, f = config.pm, config.feedback
    assert c is not None
    assert f is not None
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


def _rl(config: Config) -> Work:
    c = config.rl
    assert c is not None
    replies = c.iterations * c.rollouts
    length = PROMPT + c.reply_tokens
    return Work(
        replies, 4 * replies * length, replies * c.reply_tokens, 2 * c.epochs * replies * length
    )


def _evaluate(config: Config) -> Work:
    c = config.evaluate
    assert c is not None
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


WORK: dict[str, Callable[[Config], Work]] = {
    "helpful": _helpful,
    "revise": _revise,
    "sft": _sft,
    "feedback": _feedback,
    "pm": _pm,
    "rl": _rl,
    "evaluate": _evaluate,
}
"""The work of each stage as its settings imply it."""
