"""Speed and memory on one GPU: a 1B model trained, PPO by phases, the pipeline stage by stage.

    python benchmarks/gpu.py --out DIR [--model FOLDER] [--parts sft pm ppo pipeline] [--minutes 8]

Nothing is fetched. SFT and the preference model train adapters on a Llama of 1.1B random weights in
bf16, with activations kept, then computed twice, then with AdamW in eight bits (where bitsandbytes
is installed). What a step needs is counted per useful token, without padding: 4 per weight of the
frozen base, 6 per weight of the adapter, causal attention and the language-model head where it is
read; the rate is given as a share of the card's published bf16 peak and of a large matrix product
measured here. Two more steps are profiled to say where the rest goes. PPO is timed in sampling,
reading and updating. The pipeline runs ``scale=laptop`` on SmolLM2, or on FOLDER; a folder without
weights gets random ones, which cost the same and mean nothing, and then the guards are off.
``--small`` tries all of this out in minutes on a processor. ``results.json`` and ``results.txt`` in
DIR are written after each part, so that a part that fails or runs out of time loses no other.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from gpu_model import matrix_rate, needed, peak_of, random_trees, save_random, spent_on
from side_by_side import median, settings, table

from cai.artifacts import Store
from cai.config import Config
from cai.lm.embedded import embedded_model
from cai.lm.heads import ScalarHead, ScalarModel
from cai.lm.load import load_model
from cai.pipeline import execute, plan
from cai.run import quieten
from cai.training import ppo
from cai.training.base import TrainingModule
from cai.training.callbacks import L
from cai.training.data import Order
from cai.training.iteration import Roles
from cai.training.preference import LabelledPair, PreferenceModule
from cai.training.rollouts import RewardModel
from cai.training.sft import SFTModule
from cai.training.trainer import Fit, fit

MIB = 2**20
PROFILED = 2
"""Steps under the profiler, after those that are timed."""
GUARDS = ("role_confusion", "echo", "markers", "truncation", "near_duplicate", "no_change")
Rows = list[dict[str, Any]]


class Sizes(NamedTuple):
    """How much is done: optimizer steps, records of a step, PPO's replies and their length."""

    steps: int
    batch: int
    rollouts: int
    reply: int
    scale: str


class Place(NamedTuple):
    """What all parts share: the device, the model folders, scratch space and the sizes."""

    hardware: str
    large: Path
    small: Path
    random: bool
    scratch: Path
    sizes: Sizes


def now() -> float:
    """Return the time once the device has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def restart_memory() -> None:
    """Forget the peak so far."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> float:
    """Return the peak since then in MiB; 0 without a GPU."""
    return torch.cuda.max_memory_allocated() / MIB if torch.cuda.is_available() else 0.0


class Profiler(L.Callback):
    """Profiles the last steps of a training, and notes when each of the others ended.

    Attributes:
        ends: Times of the ends of the steps.
        kernels: Microseconds on the device by name of the kernel.
    """

    def __init__(self, per_step: int, steps: int) -> None:
        """Time ``steps`` steps of ``per_step`` micro-batches, then profile."""
        self.ends: list[float] = []
        self.kernels: dict[str, float] = {}
        self._per_step, self._steps = per_step, steps
        self._profile: Any = None

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
        """Look at the clock after a whole step."""
        if (rest[-1] + 1) % self._per_step:
            return
        self.ends.append(now())
        if len(self.ends) == self._steps and torch.cuda.is_available():
            self._profile = torch.profiler.profile(
                activities=[torch.profiler.ProfilerActivity.CUDA]
            )
            self._profile.start()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Add up the kernels."""
        if self._profile is not None:
            self._profile.stop()
            for event in self._profile.key_averages():
                self.kernels[event.key] = float(event.self_device_time_total)


def train(place: Place, method: str) -> Rows:
    """Train by one method as it is, computing activations twice, and with AdamW in eight bits."""
    rows = []
    for name, keys in {
        "as it is": [],
        "activations computed twice": ["hardware.activation_checkpointing=true"],
        "AdamW in eight bits": [f"{method}.optimizer.kind=adamw_8bit"],
    }.items():
        if "eight" in name and find_spec("bitsandbytes") is None:
            rows.append({"part": method, "how": name, "left out": "bitsandbytes is not installed"})
            continue
        rows.append({"part": method, "how": name, **trained(place, method, keys)})
    return rows


def trained(place: Place, method: str, keys: list[str]) -> dict[str, Any]:
    """Train an adapter for some steps; return rates, memory and what the time is spent on."""
    sizes = place.sizes
    config = settings(
        f"stage={method}", f"hardware={place.hardware}", "model=folder", "model.dtype=bf16",
        f"model.path={place.large}", f"{method}.optimizer.batch_size={sizes.batch}",
        f"{method}.optimizer.epochs=1", *keys,
    )  # fmt: skip
    restart_memory()
    model = load_model(config.model, config.hardware)
    model.add_adapter(method, 0)
    loaded = peak_memory()
    n_records = sizes.batch * (sizes.steps + PROFILED)
    trees = random_trees(n_records, 1 if method == "sft" else 2, model.network.config.vocab_size)
    with model.use(method):
        module = make_module(config, model, method, trees)
        watch = Profiler(module.data.per_step, sizes.steps)
        fit_once(module, config, place, watch)
    steps = [b - a for a, b in zip(watch.ends, watch.ends[1 : sizes.steps], strict=False)]
    seconds = median(steps[1:] or steps)
    useful = sum(tree.length for tree in trees) / len(module.history)
    flops = needed(model.network.config, config.model.lora_rank, trees, method == "sft")
    rate = flops / len(module.history) / seconds
    found = {
        "seconds per step": seconds,
        "useful tokens per second": useful / seconds,
        "needed TFLOP/s": rate / 1e12,
        "peak memory, MiB": peak_memory(),
        "once loaded, MiB": loaded,
    }
    if peak := peak_of():
        found["share of the published peak"] = rate / peak
    if torch.cuda.is_available():
        found["share of a matrix product"] = rate / matrix_rate()
        found["spent on"] = spent_on(watch.kernels, PROFILED * seconds)
    return found


def make_module(config: Config, model: Any, method: str, trees: list[Any]) -> TrainingModule:
    """Make the module of a method."""
    order = Order(config.hardware.micro_tokens, 0)
    if method == "sft":
        assert config.sft is not None
        return SFTModule(model, method, trees, config.sft.optimizer, order)
    assert config.pm is not None
    head = ScalarHead(model.hidden_size, 0).to(model.device)
    pairs = [LabelledPair(tree, 0.9, 1.0, "random") for tree in trees]
    return PreferenceModule(ScalarModel(model, method, head), pairs, config.pm, order)


def fit_once(module: TrainingModule, config: Config, place: Place, *callbacks: L.Callback) -> None:
    """Fit without checkpoints."""
    with tempfile.TemporaryDirectory(dir=place.scratch) as folder:
        job = Fit("benchmark", Path(folder), lambda values, step: None, 10**6, callbacks)
        fit(module, job, config.hardware, config.trainer)


class TimedPPO(ppo.PPOModule):
    """Notes the seconds of sampling, reading and updating of every iteration."""

    def iterate(self, step: int, attempt: int = 0) -> dict[str, float]:
        """Time the whole; ``seconds`` gets a row per iteration."""
        self.spent = dict.fromkeys(("sampling", "collecting", "updating"), 0.0)
        began = now()
        numbers = super().iterate(step, attempt)
        spent = {**self.spent, "all": now() - began}
        spent["reading"] = spent.pop("collecting") - spent["sampling"]
        rows = getattr(self, "seconds", [])
        self.seconds = [*rows, spent]
        return numbers

    def collect(self, step: int, attempt: int = 0) -> Any:
        """Time sampling and reading, and sampling on its own."""
        sample = ppo.generate
        ppo.generate = self._timed("sampling", sample)
        try:
            return self._timed("collecting", super().collect)(step, attempt)
        finally:
            ppo.generate = sample

    def improve(self, *arguments: Any) -> Any:
        """Time the updates."""
        return self._timed("updating", super().improve)(*arguments)

    def _timed(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            began = now()
            result = work(*arguments, **options)
            self.spent[name] += now() - began
            return result

        return timed


def reinforce(place: Place) -> Rows:
    """Time PPO's phases on both models."""
    rows = []
    for name, folder in {"SmolLM2's shape": place.small, "1B": place.large}.items():
        restart_memory()
        config = settings(
            "stage=rl", f"hardware={place.hardware}", "model=folder", "model.dtype=bf16",
            f"model.path={folder}", "rl.iterations=3", f"rl.rollouts={place.sizes.rollouts}",
            f"rl.reply_tokens={place.sizes.reply}", "rl.critic.warmup_iterations=0",
        )  # fmt: skip
        assert config.rl is not None
        model = load_model(config.model, config.hardware)
        for seed, adapter in enumerate(("policy", "critic", "pm")):
            model.add_adapter(adapter, seed)
        heads = [ScalarHead(model.hidden_size, seed).to(model.device) for seed in (0, None)]
        reward = RewardModel([ScalarModel(model, "pm", heads[0])], 0.0, 0.0)
        roles = Roles("policy", None, "critic", heads[1], reward)
        trees = random_trees(2 * place.sizes.rollouts, 1, model.network.config.vocab_size)
        asked = [tree.prompt for tree in trees]
        prompts = ppo.Prompts(asked[0::2], asked[1::2])
        module = TimedPPO(model, roles, prompts, config.rl, Order(config.hardware.micro_tokens, 0))
        fit_once(module, config, place)
        phases = {k: median([row[k] for row in module.seconds[1:]]) for k in module.seconds[0]}
        tokens = median([row["length"] for row in module.history]) * place.sizes.rollouts
        rows.append(
            {
                "part": "ppo",
                "how": name,
                **{f"{phase}, seconds": value for phase, value in phases.items()},
                "sampled tokens per second": tokens / phases["sampling"],
                "replies per second": place.sizes.rollouts / phases["all"],
                "sampler gap": max(row["sampler_gap"] for row in module.history),
                "peak memory, MiB": peak_memory(),
            }
        )
    return rows


def run_pipeline(place: Place) -> Rows:
    """Run all stages, one after the other."""
    guards = [f"revise.guards.{guard}=false" for guard in GUARDS] if place.random else []
    config = settings(
        f"scale={place.sizes.scale}", f"hardware={place.hardware}", "model=folder",
        "model.dtype=bf16", f"model.path={place.small}", f"outputs={place.scratch}/outputs",
        *guards,
    )  # fmt: skip
    store = Store(Path(config.outputs) / "artifacts")
    steps = plan(config, store)
    rows = []
    for number, step in enumerate(steps):
        restart_memory()
        began = now()
        execute(steps[: number + 1], config, store, place.scratch)
        rows.append(
            {
                "part": "pipeline",
                "how": step.stage.name,
                "seconds": now() - began,
                "peak memory, MiB": peak_memory(),
            }
        )
    return rows


PARTS: dict[str, Callable[[Place], Rows]] = {
    "sft": lambda place: train(place, "sft"),
    "pm": lambda place: train(place, "pm"),
    "ppo": reinforce,
    "pipeline": run_pipeline,
}


def machine() -> dict[str, str]:
    """Name the card and the versions."""
    names = ("torch", "transformers", "peft", "lightning", "bitsandbytes")
    found = {"device": torch.cuda.get_device_name() if torch.cuda.is_available() else "processor"}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


def write(out: Path, results: dict[str, Any]) -> None:
    """Write what there is as JSON and as text."""
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    lines = [", ".join(f"{k} {v}" for k, v in results["machine"].items())]
    for part in PARTS:
        rows = [row for row in results["rows"] if row["part"] == part]
        for row in rows:
            cells = [[k, f"{v:.4g}" if isinstance(v, float) else str(v)] for k, v in row.items()]
            flat = [cell for cell in cells if cell[0] not in ("part", "how", "spent on")]
            flat += [[f"  {k}", f"{v:.1%}"] for k, v in row.get("spent on", {}).items()]
            lines += ["", table([f"{part}: {row.get('how', '')}", ""], flat)]
    (out / "results.txt").write_text("\n".join(lines) + "\n")


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """End a block that takes too long."""

    def stop(*rest: Any) -> None:
        raise TimeoutError("no time was left")

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def place_of(args: argparse.Namespace, scratch: Path) -> Place:
    """Make the model folders."""
    given = args.model or (None if args.small else embedded_model())
    small, has_weights = given, bool(given and list(given.glob("*.safetensors")))
    if not has_weights:
        small = scratch / "small"
        save_random(small, "tiny" if args.small else "SmolLM2", given)
    large = scratch / "large"
    save_random(large, "tiny" if args.small else "1B", None)
    hardware = "gpu" if torch.cuda.is_available() else "cpu"
    sizes = Sizes(3, 4, 4, 8, "tour") if args.small else Sizes(10, 64, 64, 128, "laptop")
    assert small is not None
    return Place(hardware, large, small, not has_weights, scratch, sizes)


def main() -> int:
    """Run the parts, each within the time that is left."""
    parser = argparse.ArgumentParser(description="speed and memory on one GPU")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--model", type=Path, help="the pipeline's model, with or without weights")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--small", action="store_true", help="try it out, also without a GPU")
    args = parser.parse_args()
    if not args.small and not torch.cuda.is_available():
        parser.error("torch sees no GPU: add --small to try the script out")
    end = time.monotonic() + 60 * args.minutes
    args.out.mkdir(parents=True, exist_ok=True)
    quieten()
    logging.basicConfig(level=logging.WARNING)
    scratch = Path(tempfile.mkdtemp(prefix="cai-gpu-"))
    results: dict[str, Any] = {"machine": machine(), "rows": []}
    failed = 0
    try:
        place = place_of(args, scratch)
        for part in args.parts:
            began = time.monotonic()
            try:
                with limited(end - time.monotonic()):
                    results["rows"] += PARTS[part](place)
            except Exception as error:  # noqa: BLE001 - the other parts are worth having
                traceback.print_exc()
                failed += 1
                results["rows"].append({"part": part, "failed": f"{error!r:.300}"})
            results["machine"][f"minutes of {part}"] = f"{(time.monotonic() - began) / 60:.2f}"
            write(args.out, results)
            print(f"{part}: done after {(time.monotonic() - began) / 60:.1f} minutes", flush=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print((args.out / "results.txt").read_text())
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
