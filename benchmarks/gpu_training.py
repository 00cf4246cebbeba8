"""What benchmarks/gpu.py trains: SFT and a preference model step by step, PPO phase by phase."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from gpu_model import matrix_rate, needed, peak_of, random_trees, spent_on
from side_by_side import median, settings

from cai.config import Config
from cai.lm import sampler
from cai.lm.heads import ScalarHead, ScalarModel
from cai.lm.load import load_model
from cai.training import ppo
from cai.training.base import TrainingModule
from cai.training.data import Order
from cai.training.iteration import Roles
from cai.training.preference import PairExample, PreferenceModule
from cai.training.rollouts import RewardModel
from cai.training.sft import SFTModule
from cai.training.trainer import Fit, fit

MIB = 2**20
PROFILED = 2
"""Steps under the profiler, after those that are timed."""
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
    """Forget the peak so far, and what earlier variants still hold."""
    gc.collect()
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


def train(place: Place, method: str, rows: Rows) -> None:
    """Train by one method as it is and with one thing changed."""
    for name, keys in {
        "as it is": [],
        "activations computed twice": ["hardware.activation_checkpointing=true"],
        "layers compiled": ["hardware.compile=true"],
        "AdamW in eight bits": [f"{method}.optimizer.kind=adamw_8bit"],
    }.items():
        if "eight" in name and find_spec("bitsandbytes") is None:
            rows.append({"part": method, "how": name, "left out": "bitsandbytes is not installed"})
            continue
        rows.append({"part": method, "how": name, **trained(place, method, keys)})


def trained(place: Place, method: str, keys: list[str]) -> dict[str, Any]:
    """Train an adapter for some steps; return rates, memory and what the time is spent on."""
    sizes = place.sizes
    config = settings(
        f"stage={method}", f"hardware={place.hardware}", "model=folder", "model.dtype=bf16",
        f"model.path={place.large}", f"{method}.batch_size={sizes.batch}",
        f"{method}.epochs=1", *keys,
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
    flops = needed(model.network.config, config.model.lora.rank, trees, method == "sft")
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
        return SFTModule(model, method, trees, config.sft, order)
    head = ScalarHead(model.hidden_size, 0).to(model.device)
    pairs = [PairExample(tree, 0.9, 1.0, "random") for tree in trees]
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
        sample = sampler.generate
        sampler.generate = self._timed("sampling", sample)
        try:
            return self._timed("collecting", super().collect)(step, attempt)
        finally:
            sampler.generate = sample

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


def reinforce(place: Place, rows: Rows) -> None:
    """Time PPO's phases on both models."""
    for name, folder in {"SmolLM2's shape": place.small, "1B": place.large}.items():
        restart_memory()
        config = settings(
            "stage=rl", f"hardware={place.hardware}", "model=folder", "model.dtype=bf16",
            f"model.path={folder}", "rl.iterations=3", f"rl.rollout.prompts={place.sizes.rollouts}",
            f"rl.rollout.reply_tokens={place.sizes.reply}", "rl.critic.warmup_iterations=0",
        )  # fmt: skip
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
