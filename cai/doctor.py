"""``python -m cai.doctor [outputs] [--prune [RUN ...]]``: look over a store and an installation.

It says what is finished, unfinished and damaged, who is making what, how much space that takes and
what of it can be deleted; which versions, devices, cache and account of W&B there are. ``--prune``
deletes what is of no use to anybody; with folders of runs or sweeps named behind it, also every
result that these do not need. What somebody is making is never touched.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cai.command import command
from cai.pipeline.inventory import (
    Condition,
    Item,
    deletable,
    inventory,
    needs_of,
    prune,
    runs_in,
    size_of,
    tidy,
)
from cai.terminal import one_line

PACKAGES = (
    "torch", "transformers", "lightning", "peft", "bitsandbytes", "safetensors", "hydra-core",
    "wandb",
)  # fmt: skip
GIB = 2**30


def store_lines(items: Sequence[Item]) -> list[str]:
    """Lay out what lies in a store: a row for each thing, and the sums."""
    width = max((len(one_line(item.path.name, 60)) for item in items), default=0)
    lines = []
    for item in items:
        held = "held" if item.condition is Condition.finished else "being made"
        notes = [item.note, f"{held} by {item.holder}" if item.holder else ""]
        note = one_line("; ".join(note for note in notes if note))
        name = one_line(item.path.name, 60)
        lines.append(f"{name:{width}}  {item.condition:10} {_size(item.size):>10}  {note}".rstrip())
    for condition in Condition:
        some = [item for item in items if item.condition is condition]
        if some:
            lines.append(f"{len(some)} {condition}: {_size(sum(item.size for item in some))}")
    return lines


def installation_lines(outputs: Path) -> tuple[list[str], list[str]]:
    """Describe what there is to work with; also return what is wrong with it."""
    lines, wrong = [f"python {platform.python_version()}, {platform.platform(terse=True)}"], []
    for name in PACKAGES:
        try:
            lines.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            wrong.append(f"{name} is not installed: install this package again")
    lines += [*_devices(), _cache(wrong), _tracker()]
    place = outputs if outputs.exists() else Path()
    lines.append(f"free on the disk of {outputs}: {_size(shutil.disk_usage(place).free)}")
    return lines, wrong


def _devices() -> Iterable[str]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield f"processor: {os.cpu_count()} cores, {_size(memory)} of memory"
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    for number in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(number)
        yield f"cuda:{number}: {found.name}, {_size(found.total_memory)}"
    if torch.backends.mps.is_available():
        yield "mps: there is one"


def _cache(wrong: list[str]) -> str:
    from cai.lm.embedded import SHA256, cache_folder

    folder = cache_folder()
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(nearest, os.W_OK):
        wrong.append(f"the cache {folder} can't be written to: set CAI_CACHE to another folder")
    model = (folder / f"SmolLM2-135M-Instruct-{SHA256[:12]}" / "complete").exists()
    told = "with" if model else "without"
    return f"cache {folder}: {_size(size_of(folder))}, {told} the embedded model"


def _tracker() -> str:
    """Say whether W&B knows an account, without reading it out."""
    known = "WANDB_API_KEY" in os.environ
    for path in (os.environ.get("NETRC"), "~/.netrc", "~/_netrc"):
        file = Path(path or "").expanduser()
        known |= file.is_file() and "wandb" in file.read_text(encoding="utf-8", errors="replace")
    mode = os.environ.get("WANDB_MODE")
    return f"W&B: {'an account is set up' if known else 'no account (wandb login)'}" + (
        f", WANDB_MODE={one_line(mode)}" if mode else ""
    )


def _size(n: int) -> str:
    if n < 2**20 / 10:
        return f"{n / 2**10:.1f} KiB"
    return f"{n / GIB:.1f} GiB" if n >= GIB / 10 else f"{n / 2**20:.1f} MiB"


def examine(outputs: Path, named: Sequence[Path] | None) -> int:
    """Print all there is to say, and prune if that was asked for; return the exit status."""
    say = sys.stdout.write
    lines, wrong = installation_lines(outputs)
    say("\n".join(lines) + "\n")
    root = outputs / "artifacts"
    if root.is_dir():
        items, runs = inventory(root), len(runs_in(outputs))
        say("\n" + "\n".join([*store_lines(items), f"{runs} run{'s' * (runs != 1)}"]) + "\n")
        wrong += [f"{item.path}: {item.note}" for item in items if item.condition == "damaged"]
        needed = {name for run in named for name in needs_of(run, root)} if named else None
        gone = deletable(items, needed)
        total = _size(sum(item.size for item in gone))
        if named is None:
            say(f"{len(gone)} of no use, {total}: --prune deletes them\n")
        else:
            prune(gone)
            tidy(root)
            say(f"deleted {len(gone)}, {total}\n")
    else:
        say(f"\n{outputs} has no results yet\n")
    for sentence in wrong:
        sys.stderr.write(f"{one_line(sentence)}\n")
    return int(bool(wrong))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 1 if something is damaged or missing."""
    parser = argparse.ArgumentParser(
        prog="python -m cai.doctor", description="Look over a store and an installation."
    )
    parser.add_argument("outputs", type=Path, nargs="?", default=Path("outputs"))
    parser.add_argument(
        "--prune", type=Path, nargs="*", metavar="RUN",
        help="delete what is of no use; with runs named, also results that they do not need",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    return command(lambda: examine(options.outputs, options.prune))


if __name__ == "__main__":
    sys.exit(main())
