"""What a run that was stopped has left, as far as it can be trusted.

A kill or a power cut leaves scratch and files that the ledger knows. Everything else was damaged by
somebody: it is set aside, said, and made again, and so is the folder that is of no use without it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from cai import parts
from cai.files import ASIDE, set_aside, sha256_of, sweep
from cai.parts import LEDGER, SHARDS, Part

log = logging.getLogger(__name__)


def mend(workspace: Path) -> None:
    """Make the folder of a result, or leave in it what is known to be whole; keep its ledger."""
    if fault := _unusable(workspace):
        log.warning("%s %s: set aside as %s", workspace, fault, set_aside(workspace))
    workspace.mkdir(exist_ok=True)
    parts.begin(workspace)
    sweep(workspace)
    found = faults(workspace)
    if not found:
        return
    for unit in dict.fromkeys(_unit(name, fault) for name, fault in found.items()):
        if os.path.lexists(workspace / unit):
            set_aside(workspace / unit)
        else:
            parts.leaves(workspace / unit)
    name, fault = next(iter(found.items()))
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    log.warning(
        "%s: %s %s%s; what is not as it was left is set aside in %s%s and made again",
        workspace.stem, name, fault, more, workspace.name, ASIDE,
    )  # fmt: skip


def _unusable(workspace: Path) -> str | None:
    """Say why nothing in a folder can be trusted; None if something can, or if there is none."""
    if not os.path.lexists(workspace):
        return None
    if workspace.is_symlink() or not workspace.is_dir():
        return "is no folder"
    if any(workspace.iterdir()) and not parts.is_file(workspace / LEDGER):
        return f"has no {LEDGER}"
    return None


UNKNOWN = "was not finished"
"""What is said of a file that the ledger does not know."""


def faults(workspace: Path) -> dict[str, str]:
    """Say of every part that can't be trusted what is wrong with it."""
    known = parts.read(workspace)
    found = {}
    for name, path in _entries(workspace):
        if fault := _fault(name, path, known):
            found[name] = fault
    for name, part in known.items():
        if part.needed and not os.path.lexists(workspace / name):
            found[name] = "is missing"
    return found


def _entries(workspace: Path) -> Iterator[tuple[str, Path]]:
    """Yield all that lies below a folder, its ledger aside."""
    for root, folders, files in os.walk(workspace):
        for entry in sorted((*folders, *files)):
            path = Path(root) / entry
            name = path.relative_to(workspace).as_posix()
            if name != LEDGER:
                yield name, path


def _fault(name: str, path: Path, known: Mapping[str, Part]) -> str | None:
    if path.is_dir() and not path.is_symlink():
        return "is a folder" if name in known else None
    if name not in known:
        return UNKNOWN
    if not parts.is_file(path):
        return "is no file"
    try:
        return None if sha256_of(path) in known[name].sums else "is damaged"
    except OSError as error:
        return f"can't be read ({error.strerror})"


def _unit(name: str, fault: str) -> str:
    """Name what is of no use without a part: the part itself, or the folder that it belongs to."""
    place = PurePosixPath(name)
    alone = fault == UNKNOWN or any(parent.name.endswith(SHARDS) for parent in place.parents)
    return name if alone else place.parts[0]
