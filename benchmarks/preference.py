"""Preference models: ``PreferenceModule`` and ``fit`` against TRL's RewardTrainer.

    python -m venv DIR && DIR/bin/pip install torch trl peft transformers datasets
    python benchmarks/preference.py --peer-python DIR/bin/python --data HH [--pairs 64]

HH holds ``harmless-base/*.jsonl.gz`` of Anthropic/hh-rlhf; without it the built-in comparisons are
used, whose prompts are short. Both sides train the same adapter and head (rank, alpha, targets,
first weights) on the same base in the same precision, on the same pairs as the same token ids in
the same order, batch size and rate, for one epoch. Neither recomputes activations unless
``--checkpointing`` asks for TRL's default. The prompt of a pair is computed once here and twice
there. The clock runs from the end of the first step to the end of the last; runs alternate, each
peer's in a process of its own. Accuracy is that of the trained models on held-out pairs.
"""

from __future__ import annotations

import argparse
import math
import random
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from side_by_side import (
    Clock,
    add_clock,
    describe,
    median,
    peer_settings,
    run_worker,
    settings,
    spread,
    start_clock,
    table,
    train_to_the_end,
)

from cai.config import BadRows, Config
from cai.data.hh import read_hh_rlhf
from cai.data.sources import load_corpus
from cai.lm.heads import ScalarHead, ScalarModel, save_model
from cai.lm.language_model import ADAPTER_FILE, LanguageModel
from cai.lm.load import load_model
from cai.lm.packing import Tree
from cai.training.data import Order, schedule_batches
from cai.training.preference import PairExample, PreferenceModule, score_responses

NAME = "pm"


class Outcome(NamedTuple):
    """When each step ended, in seconds, its loss, and how far chosen replies are ahead later."""

    times: list[float]
    losses: list[float]
    margins: list[float]


class Sets(NamedTuple):
    """Pairs to train on and held out, the chosen reply first, and how many were too long."""

    train: list[Tree]
    held_out: list[Tree]
    too_long: int


def fresh(config: Config) -> tuple[LanguageModel, ScalarHead]:
    """Load the base with a new adapter and head, the same each time."""
    model = load_model(config.model, config.hardware)
    model.add_adapter(NAME, config.seed)
    return model, ScalarHead(model.hidden_size, config.seed)


def ours(config: Config, sets: Sets, clock: Clock) -> Outcome:
    """Train with this project."""
    model, head = fresh(config)
    pairs = [PairExample(tree, 1.0, 1.0, "harmless") for tree in sets.train]
    times: list[float] = []

    def record(values: Mapping[str, float], step: int) -> None:
        if "loss" in values:
            times.append(clock())

    with model.use(NAME):
        order = Order(config.hardware.micro_tokens, config.seed)
        module = PreferenceModule(ScalarModel(model, NAME, head), pairs, config.pm, order)
        train_to_the_end(module, config, record)
        scores = score_responses(model, head, sets.held_out, order.micro_tokens)
    losses = [row["loss"] for row in module.history]
    return Outcome(times, losses, [chosen - rejected for chosen, rejected in scores])


def peer_job(config: Config, sets: Sets, clock: str) -> dict[str, Any]:
    """Describe the same training, its rows in the order in which ours reads them."""
    lengths = [tree.length for tree in sets.train]
    steps = schedule_batches(lengths, config.pm, config.hardware.micro_tokens, config.seed)
    ordered = [sets.train[i] for step in steps for micro in step for i in micro.records]
    return {
        **peer_settings(config.model, clock),
        "batch": config.pm.batch_size,
        "lr": config.pm.optimizer.lr,
        "rows": [_row(tree) for tree in ordered],
        "held_out": [_row(tree) for tree in sets.held_out],
    }


def _row(tree: Tree) -> dict[str, list[int]]:
    sides = zip(("chosen_ids", "rejected_ids"), tree.responses, strict=True)
    return {side: [*tree.prompt, *response] for side, response in sides}


def read_sets(config: Config, model: LanguageModel, args: argparse.Namespace) -> Sets:
    """Draw pairs at random; one with a side of more than ``--max-tokens`` is left out."""
    if args.data:
        config.data.folder, config.data.bad_rows = args.data, BadRows.skip
        comparisons = read_hh_rlhf(config.data, "harmless-base")
    else:
        comparisons = [pair for part in load_corpus(config.data).helpful_pairs for pair in part]
    random.Random(config.seed).shuffle(comparisons)
    trees: list[Tree] = []
    too_long = 0
    for comparison in comparisons:
        best = comparison if comparison.probability >= 0.5 else comparison.swap()
        replies = [model.chat.response(reply) for reply in (best.a, best.b)]
        tree = Tree(model.chat.prompt(best.prompt.conversation), replies)
        if len(tree.prompt) + max(map(len, replies)) > args.max_tokens:
            too_long += 1
        else:
            trees.append(tree)
        if len(trees) == args.pairs + args.held_out:
            break
    return Sets(trees[: args.pairs], trees[args.pairs :], too_long)


def main() -> None:
    """Train in turn and print pairs per second, losses and held-out accuracy."""
    parser = argparse.ArgumentParser(description="preference models against TRL")
    parser.add_argument("--peer-python", required=True, help="an interpreter that has trl")
    parser.add_argument("--data", help="folder of Anthropic/hh-rlhf")
    parser.add_argument("--pairs", type=int, default=48)
    parser.add_argument("--held-out", type=int, default=40)
    parser.add_argument("--max-tokens", type=int, default=512, help="of prompt and one reply")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--dtype", default="bf16", choices=["bf16", "fp32"])
    parser.add_argument("--checkpointing", action="store_true", help="let the peer recompute")
    add_clock(parser)
    args = parser.parse_args()
    clock = start_clock(args.clock)
    config = settings(
        "stage=pm",
        f"model.dtype={args.dtype}",
        "pm.optimizer.warmup=0",
        "pm.epochs=1",
        "hardware=cpu",
    )
    model, head = fresh(config)
    sets = read_sets(config, model, args)
    job = {**peer_job(config, sets, args.clock), "checkpointing": args.checkpointing}
    outcomes: dict[str, list[Outcome]] = {"ours": [], "TRL": []}
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, NAME, Path(folder), head)
        job["adapter"] = str(Path(folder) / ADAPTER_FILE)
        for _ in range(args.repeats):
            result = run_worker(args.peer_python, "workers/trl_reward.py", job)
            outcomes["TRL"].append(Outcome(**result))
            outcomes["ours"].append(ours(config, sets, clock))
    shared = sum(len(tree.prompt) for tree in sets.train) / len(sets.train)
    replies = sum(tree.length for tree in sets.train) / len(sets.train) - shared
    print(
        f"{describe(args.dtype, args.clock)}; {len(sets.train)} pairs, "
        f"prompt {shared:.0f} and two replies {replies:.0f} tokens on average; "
        f"{sets.too_long} too long"
    )
    report(outcomes, job["batch"])


def report(outcomes: Mapping[str, Sequence[Outcome]], batch: int) -> None:
    """Print a table and the ratio."""
    rows, rates = [], {}
    for name, runs in outcomes.items():
        rates[name] = [batch * (len(r.times) - 1) / (r.times[-1] - r.times[0]) for r in runs]
        losses, margins = runs[0].losses, runs[0].margins
        half = len(losses) // 2
        accuracy = sum(margin > 0 for margin in margins) / max(1, len(margins))
        error = math.sqrt(accuracy * (1 - accuracy) / max(1, len(margins)))
        means = [sum(part) / len(part) for part in (losses[:half], losses[half:])]
        rows.append(
            [
                name,
                spread(rates[name], 2),
                f"{means[0]:.4f}",
                f"{means[1]:.4f}",
                f"{accuracy:.3f} +- {error:.3f}",
            ]
        )
    print(
        table(
            ["", "pairs per second", "loss, first half", "second half", "held-out accuracy"], rows
        )
    )
    both = (outcomes[name][0].losses for name in ("ours", "TRL"))
    gap = max(abs(a - b) for a, b in zip(*both, strict=True))
    print(
        f"ratio {median(rates['ours']) / median(rates['TRL']):.2f}; "
        f"largest difference of the loss at one step {gap:.4f}"
    )


if __name__ == "__main__":
    main()
