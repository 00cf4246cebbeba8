"""The plan's estimate of memory against the peak of a process.

    python benchmarks/memory.py [--only sft-bf16] [KEY=VALUE ...]

Each line is a process of its own that loads SmolLM2 and does once what a stage does at its peak,
with full micro-batches: a step of SFT, of a preference model, or an iteration of PPO. Its peak is
what the system counted (``ru_maxrss``), libraries included; the prediction is what
``python -m cai`` prints before a run.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from side_by_side import settings, table

from cai.config import Config
from cai.lm.footprint import footprint, shape_of
from cai.lm.heads import ScalarHead, ScalarModel
from cai.lm.load import load_model
from cai.lm.packing import Tree
from cai.pipeline.stage import Holds
from cai.training.data import Order
from cai.training.iteration import Prompts, Roles
from cai.training.ppo import PPOModule
from cai.training.preference import PairExample, PreferenceModule
from cai.training.rollouts import RewardModel
from cai.training.sft import SFTModule
from cai.training.trainer import Fit, fit

MIB = 2**10
PROMPT, REPLY, ROWS = 128, 128, 16
COMMON = ("hardware=cpu", "hardware.threads=1", "hardware.micro_tokens=2048",
          "hardware.sample_rows=16")  # fmt: skip
DTYPES = {
    "fp32": ("model.dtype=fp32",),
    "bf16": ("model.dtype=bf16",),
    "nf4": ("model.dtype=bf16", "model.quantization=nf4"),
}
CHECKPOINTED = "hardware.activation_checkpointing=true"
KEYS = {
    "sft": ("stage=sft", "sft.batch_size=8", "sft.epochs=1"),
    "sft twice": ("stage=sft", "sft.batch_size=8", "sft.epochs=2", CHECKPOINTED),
    "pm": ("stage=pm", "pm.batch_size=6", "pm.epochs=1"),
    "ppo": ("stage=rl", "rl.iterations=1", f"rl.rollout.prompts={ROWS}",
            f"rl.rollout.reply_tokens={REPLY}", f"rl.rollout.min_reply_tokens={REPLY}",
            "rl.ppo.minibatches=2", "rl.critic.warmup_iterations=0", "rl.watch.evaluate_every=9"),
}  # fmt: skip
"""What is done; "twice" computes activations twice, in two steps, for the holes grow at first."""


def prompt(n: int, token: int = 5) -> list[int]:
    """Write a prompt that begins as no other does, for what rows have in common is read once."""
    return [100 + n] + [token] * (PROMPT - 1)


def sft(config: Config, folder: Path) -> None:
    """Make one step on eight rows of 256 tokens."""
    model = load_model(config.model, config.hardware)
    model.add_adapter("a", 0)
    trees = [Tree(prompt(n), [[7] * REPLY]) for n in range(8)]
    with model.use("a"):
        order = Order(config.hardware.micro_tokens, 0)
        module = SFTModule(model, "a", trees, config.sft, order)
        train(module, config, folder)


def pm(config: Config, folder: Path) -> None:
    """Make one step on six pairs of 128 tokens with two replies of 106."""
    model = load_model(config.model, config.hardware)
    model.add_adapter("a", 0)
    trees = [Tree(prompt(n), [[7] * 106, [8] * 106]) for n in range(6)]
    pairs = [PairExample(tree, 1.0, 1.0, "helpful") for tree in trees]
    with model.use("a"):
        order = Order(config.hardware.micro_tokens, 0)
        scorer = ScalarModel(model, "a", ScalarHead(model.hidden_size, 0))
        train(PreferenceModule(scorer, pairs, config.pm, order), config, folder)


def ppo(config: Config, folder: Path) -> None:
    """Make one iteration of sixteen replies of 128 tokens."""
    model = load_model(config.model, config.hardware)
    for seed, name in enumerate(("policy", "reference", "critic", "pm")):
        model.add_adapter(name, seed)
    reward = RewardModel([ScalarModel(model, "pm", ScalarHead(model.hidden_size, 0))], 0.0, 0.0)
    roles = Roles("policy", "reference", "critic", ScalarHead(model.hidden_size, None), reward)
    prompts = Prompts([prompt(n) for n in range(ROWS)], [prompt(n, 6) for n in range(ROWS)])
    order = Order(config.hardware.micro_tokens, 0)
    train(PPOModule(model, roles, prompts, config.rl, order), config, folder)


def train(module: object, config: Config, folder: Path) -> None:
    """Fit a module without checkpoints."""
    run = Fit("x", folder, lambda values, step: None, every=100)
    fit(module, run, config.hardware, config.trainer)  # type: ignore[arg-type]


STEPS: dict[str, Callable[[Config, Path], None]] = {
    "sft": sft, "sft twice": sft, "pm": pm, "ppo": ppo,
}  # fmt: skip


def holds(what: str, config: Config) -> Holds:
    """Say what the step has in memory, as ``cai.contracts.costs`` does for a stage."""
    if what == "ppo":
        length = PROMPT + REPLY
        return Holds(4, 2, undo=True, length=length, read=REPLY / length, rows=ROWS)
    if what == "pm":
        return Holds(1, 1, length=PROMPT + 2 * 106)
    return Holds(1, 1, length=PROMPT + REPLY, read=0.5)


def measured(what: str, keys: list[str]) -> float:
    """Return the peak in GiB of a process that does it."""
    command = [sys.executable, __file__, "--worker", what, *keys]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def work(what: str, config: Config) -> None:
    """Do it in this process and print the peak."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        STEPS[what](config, Path(folder))
    print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB / MIB))


def main() -> None:
    """Print predicted and measured peaks."""
    parser = argparse.ArgumentParser(description="predicted against measured memory")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--only", nargs="*", metavar="STEP-DTYPE", help="such as sft-bf16")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings of conf/")
    args = parser.parse_intermixed_args()
    if args.worker:
        work(args.worker, settings(*args.overrides))
        return
    rows = []
    for what, own in KEYS.items():
        for name, dtype in DTYPES.items():
            if args.only and f"{what}-{name}" not in args.only:
                continue
            keys = [*own, *COMMON, *dtype, *args.overrides]
            config = settings(*keys)
            found = footprint(shape_of(config.model), holds(what, config), config, 1).peak
            peak = measured(what, keys)
            rows.append([what, name, f"{found:.2f}", f"{peak:.2f}", f"{found / peak:.2f}"])
            print(*rows[-1], flush=True)
    print(table(["step", "weights", "predicted, GiB", "measured, GiB", "ratio"], rows))


if __name__ == "__main__":
    main()
