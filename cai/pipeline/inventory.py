"""What lies in a store: finished, unfinished, damaged or left over; who needs it and who has it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cai.errors import UserError
from cai.files import ASIDE, SCRATCH, read_json, remove, sweep
from cai.parts import LEDGER, PARTIAL, is_file
from cai.pipeline.mend import faults
from cai.pipeline.stage import NEEDS, RECORD, RESULT, Result, result_name
from cai.pipeline.store import fault_of


class Condition(StrEnum):
    """What something in a store is."""

    finished = "finished"
    unfinished = "unfinished"
    damaged = "damaged"
    aside = "set aside"
    leftover = "left over"


@dataclass(frozen=True)
class Item:
    """Something that lies in a store.

    Attributes:
        path: Where.
        condition: What it is.
        size: Bytes on the disk.
        note: What there is to say of it.
        holder: Who is making it; None if nobody is.
    """

    path: Path
    condition: Condition
    size: int
    note: str = ""
    holder: str | None = None

    @property
    def result(self) -> str:
        """Name of the result that it is, or is becoming."""
        return self.path.name.removesuffix(PARTIAL)


def inventory(root: Path) -> list[Item]:
    """List what lies in a store, by name; nothing is changed."""
    entries = sorted(path for path in root.iterdir() if path.suffix != ".lock")
    return [_item(path) for path in entries]


def _item(path: Path) -> Item:
    size, holder = size_of(path), holder_of(path)
    if ASIDE in path.suffix:
        return Item(path, Condition.aside, size)
    if path.name.startswith("."):
        return Item(path, Condition.leftover, size)
    if path.name.endswith(PARTIAL):
        doubts = "" if holder else _doubts(path)
        return Item(path, Condition.unfinished, size, doubts, holder)
    fault = fault_of(_named(path))
    condition = Condition.damaged if fault else Condition.finished
    return Item(path, condition, size, fault or "", holder)


def _doubts(path: Path) -> str:
    """Say what of an unfinished result will be made again."""
    if not is_file(path / LEDGER):
        return f"has no {LEDGER}: is begun anew" if path.is_dir() and any(path.iterdir()) else ""
    found = {
        name: fault
        for name, fault in faults(path).items()
        if not any(Path(part).match(p) for part in Path(name).parts for p in SCRATCH)
    }
    return "; ".join(f"{name} {fault}" for name, fault in list(found.items())[:3])


def _named(path: Path) -> Result:
    """Give a folder the fingerprint that its record states, if that goes with its name."""
    stage, key = path.name.rpartition("-")[0], ""
    with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        if is_file(path / RECORD):
            key = read_json(path / RECORD)["fingerprint"]
    right = isinstance(key, str) and result_name(stage, key) == path.name
    return Result(stage, key if right else "", path)


def size_of(path: Path) -> int:
    """Return the bytes below a path, links counted once and not followed."""
    return sum(size for _, size in _sizes(path))


def _sizes(path: Path) -> Iterator[tuple[str, int]]:
    with suppress(OSError):
        if path.is_symlink() or not path.is_dir():
            yield str(path), path.lstat().st_size
            return
        for entry in path.iterdir():
            yield from _sizes(entry)


def holder_of(path: Path) -> str | None:
    """Say who holds the lock of a result; None if nobody does."""
    lock = _lock_of(path)
    if not is_file(lock):
        return None
    try:
        with FileLock(lock, timeout=0):
            return None
    except Timeout:
        return _process(lock.stat().st_ino)
    except OSError:
        return None  # of another user, whose lock can't be asked


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name.lstrip('.').partition('.')[0]}.lock")


def _process(inode: int) -> str:
    """Name the process that Linux says holds a lock on a file."""
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            fields = line.split()
            if "->" not in fields and fields[5].split(":")[-1] == str(inode):
                words = Path(f"/proc/{fields[4]}/cmdline").read_bytes().split(b"\0")
                said = b" ".join(words[:8]).decode(errors="replace").strip()
                return f"process {fields[4]} ({said})"
    return "another process"


# Who needs it


def runs_in(outputs: Path) -> list[Path]:
    """List the folders of runs, and of the arms of sweeps, below an output folder."""
    folders = (outputs / "runs", outputs / "sweeps")
    return sorted(path.parent for folder in folders for path in folder.rglob(".hydra"))


def needs_of(run: Path, root: Path) -> set[str]:
    """Return the names of the results that a run stands on; of a sweep, those of all its arms.

    Raises:
        UserError: If it does not say.
    """
    folders = sorted(path.parent for path in run.rglob(".hydra"))
    if not folders:
        raise UserError(f"{run} is no folder of a run or a sweep: name one below outputs/")
    return {name for folder in folders for name in _needs(folder, root)}


def _needs(folder: Path, root: Path) -> set[str]:
    try:
        if is_file(folder / NEEDS):
            return {str(name) for name in read_json(folder / NEEDS)}
        return _chain(Path(read_json(folder / RESULT)["artifact"]).name, root)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{folder} does not say which results it needs: run its command again, which makes "
            "nothing that is there, or leave it out"
        ) from error


def _chain(name: str, root: Path) -> set[str]:
    """Return a result and all that it was made from."""
    recipe: dict[str, Any] = read_json(root / name / RECORD)["recipe"]
    before = (result_name(stage, key) for stage, key in recipe["inputs"].items())
    return {name}.union(*(_chain(other, root) for other in before))


def deletable(items: Sequence[Item], needed: set[str] | None) -> list[Item]:
    """Choose what may go: what is of no use and, if needs are named, what nobody named needs.

    What somebody is making stays in any case.
    """
    useless = {Condition.damaged, Condition.aside, Condition.leftover}
    return [
        item
        for item in items
        if item.holder is None
        and (item.condition in useless or (needed is not None and item.result not in needed))
    ]


def prune(items: Sequence[Item]) -> int:
    """Delete items, each under its lock; return the bytes that are free again."""
    freed = 0
    for item in items:
        with suppress(Timeout), FileLock(_lock_of(item.path), timeout=0):
            remove(item.path)
            freed += item.size
    return freed


def tidy(root: Path) -> None:
    """Remove scratch files from unfinished results that nobody is making."""
    for path in root.glob(f"*{PARTIAL}"):
        if path.is_dir() and holder_of(path) is None and os.access(path, os.W_OK):
            sweep(path)
