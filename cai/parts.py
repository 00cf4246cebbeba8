"""The ledger of a result in the making: which of its files are known to be whole.

A stage fills a folder whose name ends in ``.partial``. Before a file takes its place there, its
checksum is written down in ``parts.log`` and flushed; after that, that it stands there. So whatever
a kill or a power cut leaves can be told from what somebody damaged (``cai.pipeline.mend``).
A line is JSON: ``["+", name, sha256]`` may stand there, ``["=", name]`` stands there, and
``["-", name]`` is removed, with all below it. Lines that can't be read say nothing.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

PARTIAL = ".partial"
"""How the name of a folder ends that holds a result in the making."""
LEDGER = "parts.log"
SHARDS = ".shards"
"""How the name of a folder ends whose files do not depend on each other."""


@dataclass
class Part:
    """What the ledger knows of one file.

    Attributes:
        sums: Checksums that it may have: a newer file may or may not have taken its place.
        needed: Whether it must be there.
    """

    sums: set[str] = field(default_factory=set)
    needed: bool = False


def begin(workspace: Path) -> None:
    """Start a ledger in a folder that has none; files that are put there are taken down in it."""
    with (workspace / LEDGER).open("a", encoding="utf-8") as file:
        os.fsync(file.fileno())


def expect(path: Path, digest: str) -> None:
    """Take down that a file with this checksum is about to stand at a path."""
    _append(path, ["+", digest], flush=True)


def stands(path: Path) -> None:
    """Take down that it does."""
    _append(path, ["="], flush=False)


def leaves(path: Path) -> None:
    """Take down that a file or folder is about to be removed."""
    _append(path, ["-"], flush=True)


def _append(path: Path, said: list[str], flush: bool) -> None:
    workspace = workspace_of(path)
    if workspace is None:
        return
    word, *rest = said
    line = json.dumps([word, path.relative_to(workspace).as_posix(), *rest])
    with (workspace / LEDGER).open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")  # a line that broke off before does not spoil this one
        file.flush()
        if flush:
            os.fsync(file.fileno())


def workspace_of(path: Path) -> Path | None:
    """Return the folder with a ledger that a path lies in; None if there is none."""
    for parent in path.parents:
        if parent.name.endswith(PARTIAL) and is_file(parent / LEDGER):
            return parent
    return None


def read(workspace: Path) -> dict[str, Part]:
    """Return what the ledger of a folder knows, by name; nothing if there is none to be read."""
    known: dict[str, Part] = {}
    ledger = workspace / LEDGER
    if not is_file(ledger):
        return known
    for line in ledger.read_text(encoding="utf-8", errors="replace").splitlines():
        match _parsed(line):
            case ["+", str(name), str(digest)]:
                known.setdefault(name, Part()).sums.add(digest)
            case ["=", str(name)]:
                known.setdefault(name, Part()).needed = True
            case ["-", str(name)]:
                for other, part in known.items():
                    part.needed &= other != name and not other.startswith(f"{name}/")
    return known


def is_file(path: Path) -> bool:
    """Tell whether a path is a file of its own: no link, no folder, nothing that one waits at."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _parsed(line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
