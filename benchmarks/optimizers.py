"""AdamW with its state in eight bits against AdamW: a preference model each, on the same pairs.

    python benchmarks/optimizers.py --data DIR --set hh [--pairs N] [--test N] [KEY=VALUE]

The pairs are those of preference_data.py. Both preference models start from the same weights and
read the same pairs in the same order, once. The state is what the optimizer holds for each trained
number; the standard error of the difference counts pairs of one prompt as one draw.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path
from typing import NamedTuple

import lightning as L
import numpy as np
import torch
from preference_data import Parts, accuracy, add_comparisons, margins, read_parts
from side_by_side import CLOCKS, settings, start_clock, table

from cai.algorithms.calibration import Array
from cai.config import Config, OptimizerKind
from cai.data.records import Comparison
from cai.data.splits import family
from cai.lm.heads import ScalarHead, ScalarModel
from cai.lm.load import LanguageModel, load_model
from cai.training.data import Order
from cai.training.preference import PairExample, PreferenceModule, pair_tree
from cai.training.trainer import Fit, fit

KINDS = (OptimizerKind.adamw, OptimizerKind.adamw_8bit)


class Learnt(NamedTuple):
    """What a PM says of the test pairs, and what it took."""

    margins: Array
    loss: float
    seconds: float
    state: float


class State(L.Callback):
    """Measures the optimizer's state in bytes for each trained number."""

    size = 0.0

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add up what it holds."""
        states = [s for optimizer in trainer.optimizers for s in optimizer.state.values()]
        tensors = [x for state in states for x in state.values() if isinstance(x, torch.Tensor)]
        trained = sum(p.numel() for p in pl_module.parameters())
        self.size = sum(x.nbytes for x in tensors) / trained


def learn(
    config: Config, model: LanguageModel, kind: OptimizerKind, parts: Parts, timer: str
) -> Learnt:
    """Train a new PM for one epoch and score the test pairs."""
    config.pm.optimizer.kind = kind
    model.add_adapter(kind.value, config.seed)
    head = ScalarHead(model.hidden_size, config.seed).to(model.device)
    pairs = [PairExample(pair_tree(model, c), 1.0, 1.0, c.source) for c in parts.train]
    state, clock = State(), CLOCKS[timer]
    began = clock()
    with model.use(kind.value), tempfile.TemporaryDirectory() as folder:
        order = Order(config.hardware.micro_tokens, config.seed)
        scorer = ScalarModel(model, kind.value, head)
        module = PreferenceModule(scorer, pairs, config.pm, order)
        job = Fit(kind.value, Path(folder), lambda values, step: None, len(pairs), (state,))
        fit(module, job, config.hardware, config.trainer)
        seconds = clock() - began
        found = margins(config, model, head, parts.test)
    last = [row["loss"] for row in module.history][-4:]
    return Learnt(found, sum(last) / len(last), seconds, state.size)


def difference(ours: Array, theirs: Array, comparisons: list[Comparison]) -> tuple[float, float]:
    """Return how much more often ours is right, and the standard error, clustered by prompt."""
    gaps = (np.sign(ours) - np.sign(theirs)) / 2
    mean = float(gaps.mean())
    sums: dict[str, float] = {}
    for value, comparison in zip(gaps, comparisons, strict=True):
        name = family(comparison.prompt.conversation)
        sums[name] = sums.get(name, 0.0) + float(value) - mean
    return mean, math.sqrt(sum(total * total for total in sums.values())) / len(gaps)


def main() -> None:
    """Train one PM with each and print them side by side."""
    parser = argparse.ArgumentParser(description="AdamW in eight bits against AdamW")
    parser.add_argument("--pairs", type=int, default=176, help="training pairs")
    add_comparisons(parser)
    args = parser.parse_args()
    config = settings("stage=pm", f"seed={args.seed}", *args.overrides, "pm.epochs=1")
    model = load_model(config.model, config.hardware)
    start_clock(args.clock)
    parts, _ = read_parts(args, model)
    parts = parts._replace(train=parts.train[: args.pairs])
    found: dict[OptimizerKind, Learnt] = {}
    for kind in KINDS:
        made = found[kind] = learn(config, model, kind, parts, args.clock)
        told = accuracy(made.margins, parts.test)
        print(kind.value, told, f"{made.state:.2f} bytes, {made.seconds:.0f} s", flush=True)
    rows = [
        [kind.value, accuracy(m.margins, parts.test), f"{m.loss:.4f}", f"{m.state:.2f}",
         f"{m.seconds / 60:.1f}"]
        for kind, m in found.items()
    ]  # fmt: skip
    print(f"{args.set}: {len(parts.train)} training pairs, {len(parts.test)} test pairs")
    print(table(["", "accuracy", "loss at the end", "bytes of state", "minutes"], rows))
    plain, small = (found[kind].margins for kind in KINDS)
    mean, error = difference(small, plain, parts.test)
    agreed = float((np.sign(small) == np.sign(plain)).mean())
    print(f"eight bits less plain: {mean:+.3f} +- {error:.3f}; they agree on {agreed:.3f}")


if __name__ == "__main__":
    main()
