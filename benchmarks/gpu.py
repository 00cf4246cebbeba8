"""Speed and memory on one GPU: a 1B model trained, PPO by phases, the pipeline stage by stage.

    python benchmarks/gpu.py --out DIR [--model FOLDER] [--parts sft pm ppo pipeline] [--minutes 8]

Nothing is fetched. SFT and the preference model train adapters on a Llama of 1.1B random weights in
bf16, with activations kept, then computed twice, then with the layers compiled, then with AdamW in
eight bits (where bitsandbytes is installed). What a step needs is counted per useful token, without
padding: 4 per weight of the frozen base, 6 per weight of the adapter, causal attention and the
language-model head where it is read; the rate is given as a share of the card's published bf16 peak
and of a large matrix product measured here. Two more steps are profiled to say where the rest goes.
PPO is timed in sampling, reading and updating. The pipeline runs ``scale=laptop`` on SmolLM2, or on
FOLDER; a folder without weights gets random ones, which cost the same and mean nothing, and then
the guards are off. Where SmolLM2 can't be had either, its shape with random weights and a
vocabulary of bytes stands for it. ``--small`` tries all of this out in minutes on a processor.
``results.json`` and ``results.txt`` in DIR are written after each part, so that a part that fails
or runs out of time loses no other.
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
from pathlib import Path
from typing import Any

import torch
from gpu_model import save_random
from gpu_training import Place, Rows, Sizes, now, peak_memory, reinforce, restart_memory, train
from side_by_side import settings, table

from cai.contracts.table import stages
from cai.errors import UserError
from cai.lm.embedded import embedded_model
from cai.pipeline.execute import execute
from cai.pipeline.plan import plan
from cai.pipeline.store import Store
from cai.run import quieten

GUARDS = ("role_confusion", "echo", "markers", "truncation", "near_duplicate", "no_change")
"""Of the revise stage."""


def run_pipeline(place: Place, rows: Rows) -> None:
    """Run all stages, one after the other."""
    guards = [f"revise.guards.{guard}=false" for guard in GUARDS] if place.random else []
    config = settings(
        f"scale={place.sizes.scale}", f"hardware={place.hardware}", "model=folder",
        "model.dtype=bf16", f"model.path={place.small}", f"outputs={place.scratch}/outputs",
        "model.context=8192", *guards,
    )  # fmt: skip
    store = Store(Path(config.outputs) / "artifacts")
    steps = plan(config, store, stages())
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


PARTS: dict[str, Callable[[Place, Rows], None]] = {
    "sft": lambda place, rows: train(place, "sft", rows),
    "pm": lambda place, rows: train(place, "pm", rows),
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


def measured(part: str, place: Place, seconds: float) -> Rows:
    """Run one part; what goes wrong is a row, since the other parts are worth having."""
    rows: Rows = []
    try:
        with limited(seconds):
            PARTS[part](place, rows)
    except Exception as error:  # noqa: BLE001
        traceback.print_exc()
        rows.append({"part": part, "how": "failed", "failed": f"{error!r:.300}"})
    return rows


def cached_model() -> Path | None:
    """Return SmolLM2's folder, if this machine has it."""
    try:
        return embedded_model()
    except UserError as error:
        print(f"random weights in place of SmolLM2: {error}", flush=True)
        return None


def place_of(args: argparse.Namespace, scratch: Path) -> Place:
    """Make the model folders."""
    given = args.model or (None if args.small else cached_model())
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
            rows = measured(part, place, end - began)
            failed += any("failed" in row for row in rows)
            results["rows"] += rows
            minutes = f"{(time.monotonic() - began) / 60:.2f}"
            results["machine"][f"minutes of {part}"] = minutes
            write(args.out, results)
            print(f"{part}: done after {minutes} minutes", flush=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print((args.out / "results.txt").read_text())
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
