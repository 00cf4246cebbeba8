"""One comparison under 16 principles, both orders, 5 few-shots: a reused prefix or separate passes.

    python benchmarks/labelling.py [--dtype fp32] [--pairs 2] [--repeats 2]

Both sides answer the same 32 rendered questions with the same model. "reused" computes what all
questions share once (``option_logprobs``); "separate" gives each question a full pass of its own
through the same code, and is spared a second pass per option: both are read off one. The last
column is the largest difference between the two sides' probabilities of "(A)".
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
from side_by_side import (
    Clock,
    add_clock,
    describe,
    median,
    settings,
    spread,
    start_clock,
    table,
    timed,
)
from torch import Tensor

from cai.constitution.principles import load_constitution
from cai.data.records import Comparison
from cai.data.sources import load_corpus
from cai.labelling.answers import Asked, FeedbackModel, FewShots
from cai.labelling.choice import MultipleChoice
from cai.lm.load import LanguageModel, load_model
from cai.lm.packing import Tree
from cai.lm.score import option_logprobs, token_logprobs

Prompts = list[list[int]]


def reused(model: LanguageModel, prompts: Prompts, options: Prompts) -> Tensor:
    """Return the probability of the first option after each prompt, the common prefix read once."""
    return first_share(option_logprobs(model.network, prompts, options, model.read_tokens))


def separate(model: LanguageModel, prompts: Prompts, options: Prompts) -> Tensor:
    """Return the same from a full pass over every prompt."""
    trees = [Tree(prompt, options) for prompt in prompts]
    read = token_logprobs(model.network, trees, model.read_tokens, as_trained=True)
    return first_share(torch.stack([torch.stack([o.sum() for o in row]) for row in read]))


def first_share(scores: Tensor) -> Tensor:
    """Return the probability of the first option, normalised over the options."""
    shares: Tensor = scores.softmax(-1)
    return shares[:, 0]


def compare(
    model: LanguageModel, prompts: Prompts, options: Prompts, repeats: int, clock: Clock
) -> tuple[list[float], list[float], float]:
    """Time both sides in turn; return their seconds, and the largest difference in probability."""
    seconds: dict[str, list[float]] = {"reused": [], "separate": []}
    found: dict[str, Tensor] = {}
    sides = {"reused": reused, "separate": separate}
    for repeat in range(repeats):
        for name, side in sides.items() if repeat % 2 == 0 else reversed(sides.items()):
            taken, found[name] = timed(clock, partial(side, model, prompts, options))
            seconds[name].append(taken)
    gap = float((found["reused"] - found["separate"]).abs().max())
    return seconds["reused"], seconds["separate"], gap


def main() -> None:
    """Label the first held-out comparisons and print a row for each."""
    parser = argparse.ArgumentParser(description="labels with and without a reused prefix")
    parser.add_argument("--dtype", default="fp32", choices=["bf16", "fp32"])
    parser.add_argument("--pairs", type=int, default=2, help="comparisons; a row each")
    parser.add_argument("--repeats", type=int, default=2)
    add_clock(parser)
    args = parser.parse_args()
    clock = start_clock(args.clock)
    config = settings("stage=feedback", f"model.dtype={args.dtype}")
    corpus = load_corpus(config.data)
    model = load_model(config.model, config.hardware)
    principles = load_constitution(config.constitution).comparison
    shots = FewShots(corpus.demonstrations[:5], principles, config.seed)
    method = MultipleChoice(FeedbackModel(model, None), shots)
    rows = []
    for comparison in corpus.harmless_pairs.test[: args.pairs]:
        prompts = _questions(method, comparison)
        separate(model, prompts[:1], method.options)
        ours, peer, gap = compare(model, prompts, method.options, args.repeats, clock)
        tokens = sum(map(len, prompts))
        share = median(ours) / median(peer)
        shape = f"{len(prompts)} x {tokens / len(prompts):.0f}"
        rows.append(
            [comparison.prompt.id, shape, spread(ours), spread(peer), f"{share:.3f}", f"{gap:.1e}"]
        )
    print(f"{describe(args.dtype, args.clock)}, 5 few-shots")
    head = [
        "seconds per comparison",
        "questions x tokens",
        "reused",
        "separate",
        "share",
        "difference",
    ]
    print(table(head, rows))


def _questions(method: MultipleChoice, comparison: Comparison) -> Prompts:
    """Render a comparison under every principle in both orders."""
    return [
        method.render(Asked(comparison, principle, swapped))
        for principle in method.shots.principles
        for swapped in (False, True)
    ]


if __name__ == "__main__":
    main()
