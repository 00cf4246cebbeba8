"""What the benchmarks share: settings from conf/, the clock, the table, and how a peer is run."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir

from cai.composition import CONF, schema, typed
from cai.config import Config, ModelConfig
from cai.lm.embedded import embedded_model
from cai.training.base import TrainingModule
from cai.training.records import Record
from cai.training.trainer import Fit, fit

HERE = Path(__file__).parent
Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}


def settings(*overrides: str) -> Config:
    """Compose the configuration as ``python -m cai`` does."""
    schema()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return typed(compose("config", overrides=["tracking=off", *overrides]))


def peer_settings(model: ModelConfig, clock: str) -> dict[str, Any]:
    """Describe the default model, its adapters, the clock and the threads to a worker."""
    return {
        "model": str(embedded_model()),
        "dtype": {"bf16": "bfloat16", "fp32": "float32"}[model.dtype.value],
        "rank": model.lora.rank,
        "alpha": model.lora.alpha,
        "targets": "all-linear",
        "clock": {"wall": "perf_counter", "cpu": "process_time"}[clock],
        "threads": torch.get_num_threads(),
    }


def add_clock(parser: argparse.ArgumentParser) -> None:
    """Add the option that chooses the clock."""
    parser.add_argument(
        "--clock",
        choices=list(CLOCKS),
        default="wall",
        help="cpu: processor time on one thread, for a machine with other work",
    )


def start_clock(name: str) -> Clock:
    """Return the clock; processor time is that of one thread, since idle threads may spin."""
    if name == "cpu":
        torch.set_num_threads(1)
    return CLOCKS[name]


def train_to_the_end(
    module: TrainingModule, config: Config, record: Record = lambda values, step: None
) -> None:
    """Fit a module without checkpoints."""
    with tempfile.TemporaryDirectory() as folder:
        job = Fit("benchmark", Path(folder), record, every=module.n_steps)
        fit(module, job, config.hardware, config.trainer)


def timed(clock: Clock, work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds that some work takes, and its result."""
    start = clock()
    result = work()
    return clock() - start, result


def run_worker(python: str, script: str, job: dict[str, Any]) -> dict[str, Any]:
    """Run a script in a process of its own and return what it measured.

    Args:
        python: The interpreter that has the libraries of the script.
        script: A file of this folder; it is given the paths of its job and of its result.
        job: Written as JSON.
    """
    with tempfile.TemporaryDirectory() as folder:
        order, answer, log = (Path(folder) / name for name in ("job.json", "result.json", "log"))
        order.write_text(json.dumps({**job, "folder": folder}), encoding="utf-8")
        command = [python, str(HERE / script), str(order), str(answer)]
        with log.open("w") as out:
            done = subprocess.run(command, stdout=out, stderr=out, env=os.environ, check=False)
        if done.returncode:
            sys.exit(f"{script} failed:\n{log.read_text()[-3000:]}")
        result: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
        return result


def describe(dtype: str, clock: str) -> str:
    """Name the model, its precision, the threads and the clock."""
    return f"SmolLM2-135M, {dtype}, {torch.get_num_threads()} threads, {clock} time"


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return float(statistics.median(values))


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Write a median with the lowest and the highest value."""
    low, high = min(values), max(values)
    return f"{median(values):.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table in columns, the first one to the left."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = []
    for row in (head, *rows):
        first, *others = (
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join([first, *others]).rstrip())
    return "\n".join(lines)
