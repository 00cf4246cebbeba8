"""Supervised fine-tuning: ``SFTModule`` and ``fit`` against TRL's SFTTrainer.

    python -m venv DIR && DIR/bin/pip install torch trl peft transformers datasets
    python benchmarks/sft.py --peer-python DIR/bin/python [--examples 96] [--repeats 3]

Both train the same adapter (rank, alpha, targets and first weights) on the same base in the same
precision, on the same helpful answers as the same token ids in the same order, with the same batch
size, rate and AdamW, for one epoch; the loss counts the reply alone. Neither recomputes activations
unless ``--checkpointing`` asks for TRL's default, which saves memory and costs time. A useful token
is one of a prompt or reply; padding is not. The clock runs from the end of the first step to the
end of the last, so that neither is charged for its start. Ours and the peer's runs alternate, each
peer's in a process of its own.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
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

from cai.config import Config
from cai.data.sources import load_corpus
from cai.lm.heads import save_model
from cai.lm.language_model import ADAPTER_FILE, LanguageModel
from cai.lm.load import load_model
from cai.lm.packing import Tree
from cai.training.data import Order, schedule_batches
from cai.training.sft import SFTModule

NAME = "sft"


class Curve(NamedTuple):
    """When each step ended, in seconds, and its loss."""

    times: list[float]
    losses: list[float]


def ours(config: Config, examples: list[Tree], clock: Clock) -> Curve:
    """Train with this project."""
    model = fresh(config)
    times: list[float] = []

    def record(values: Mapping[str, float], step: int) -> None:
        if "loss" in values:
            times.append(clock())

    with model.use(NAME):
        order = Order(config.hardware.micro_tokens, config.seed)
        module = SFTModule(model, NAME, examples, config.sft, order)
        train_to_the_end(module, config, record)
    return Curve(times, [row["loss"] for row in module.history])


def fresh(config: Config) -> LanguageModel:
    """Load the base with a new adapter, the same each time."""
    model = load_model(config.model, config.hardware)
    model.add_adapter(NAME, config.seed)
    return model


def peer_job(config: Config, examples: list[Tree], clock: str) -> dict[str, Any]:
    """Describe the same training, its rows in the order in which ours reads them."""
    rows = [
        {
            "input_ids": [*tree.prompt, *tree.responses[0]],
            "completion_mask": [0] * len(tree.prompt) + [1] * len(tree.responses[0]),
        }
        for batch in batches(config, examples)
        for tree in batch
    ]
    return {
        **peer_settings(config.model, clock),
        "batch": config.sft.batch_size,
        "lr": config.sft.optimizer.lr,
        "rows": rows,
    }


def batches(config: Config, examples: list[Tree]) -> list[list[Tree]]:
    """Return the examples of each step."""
    lengths = [tree.length for tree in examples]
    steps = schedule_batches(lengths, config.sft, config.hardware.micro_tokens, config.seed)
    return [[examples[i] for micro in step for i in micro.records] for step in steps]


def main() -> None:
    """Train in turn, print the rates and the loss curves."""
    parser = argparse.ArgumentParser(description="SFT against TRL")
    parser.add_argument("--peer-python", required=True, help="an interpreter that has trl")
    parser.add_argument("--examples", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtype", default="bf16", choices=["bf16", "fp32"])
    parser.add_argument("--checkpointing", action="store_true", help="let the peer recompute")
    add_clock(parser)
    args = parser.parse_args()
    clock = start_clock(args.clock)
    config = settings(
        "stage=sft",
        f"model.dtype={args.dtype}",
        "sft.optimizer.warmup=0",
        "sft.optimizer.schedule=constant",
        "sft.epochs=1",
        "hardware=cpu",
    )
    model = fresh(config)
    examples = [
        Tree(model.chat.prompt(e.prompt.conversation), [model.chat.response(e.response)])
        for e in load_corpus(config.data).helpful.train[: args.examples]
    ]
    counts = [sum(tree.length for tree in batch) for batch in batches(config, examples)]
    curves: dict[str, list[Curve]] = {"ours": [], "TRL": []}
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, NAME, Path(folder))
        job = {**peer_job(config, examples, args.clock), "checkpointing": args.checkpointing}
        job["adapter"] = str(Path(folder) / ADAPTER_FILE)
        for _ in range(args.repeats):
            result = run_worker(args.peer_python, "workers/trl_sft.py", job)
            curves["TRL"].append(Curve(result["times"], result["losses"]))
            curves["ours"].append(ours(config, examples, clock))
    print(describe(args.dtype, args.clock))
    report(counts, curves)


def report(counts: list[int], curves: dict[str, list[Curve]]) -> None:
    """Print useful tokens per second and the mean loss over stretches of the epoch."""
    rates = {
        name: [sum(counts[1:]) / (run.times[-1] - run.times[0]) for run in runs]
        for name, runs in curves.items()
    }
    ratio = median(rates["ours"]) / median(rates["TRL"])
    print(f"{len(counts)} steps, {sum(counts)} useful tokens")
    rows = [[name, spread(values, 0)] for name, values in rates.items()]
    print(table(["", "useful tokens per second"], rows))
    print(f"ratio {ratio:.2f}\n")
    quarter = max(1, len(counts) // 4)
    starts = range(0, len(counts), quarter)
    losses = {name: runs[0].losses for name, runs in curves.items()}
    head = ["mean loss of steps", *(f"{s + 1}-{min(s + quarter, len(counts))}" for s in starts)]
    print(
        table(
            head,
            [
                [
                    name,
                    *(f"{sum(c[s : s + quarter]) / len(c[s : s + quarter]):.4f}" for s in starts),
                ]
                for name, c in losses.items()
            ],
        )
    )
    gaps = [abs(a - b) for a, b in zip(losses["ours"], losses["TRL"], strict=True)]
    print(f"largest difference at one step {max(gaps):.4f}")


if __name__ == "__main__":
    main()
