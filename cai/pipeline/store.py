"""Content-addressed stage outputs: the same stage, settings and inputs are computed once.

A result lives in ``<stage>-<fingerprint>/``. While it is being made the folder's name ends in
``.partial``, and what is in it is known by a ledger (``cai.parts``); it is renamed when
``artifact.json``, written last, holds the checksum of every file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cai.errors import UserError
from cai.files import flush, flush_all, open_up, remove, set_aside, sweep, write_json
from cai.parts import LEDGER, is_file
from cai.pipeline.stage import RECORD, Result, result_name

log = logging.getLogger(__name__)


def fingerprint(recipe: Mapping[str, Any]) -> str:
    """Name a result by everything that can change it."""
    text = json.dumps(recipe, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def checksums(folder: Path) -> dict[str, str]:
    """Map every file below a folder, its record and its ledger left out, to its sha256."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): _sha256(path)
        for path in files
        if path.relative_to(folder).as_posix() not in {RECORD, LEDGER}
    }


class Store:
    """The folder of all artifacts; parallel runs may share it."""

    def __init__(self, root: Path) -> None:
        """Use ``root``, made if need be; one that may only be read still gives what is finished.

        Raises:
            UserError: If it is not there and can't be made.
        """
        self.root, self._closed = root, ""
        try:
            root.mkdir(parents=True, exist_ok=True)
            probe = root / f".writable-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            self._closed = (
                f"outputs={root.parent} can't be written to ({error.strerror}): set outputs= to a "
                "folder that you may write"
            )
            if not root.is_dir():
                raise UserError(self._closed) from error

    def find(self, stage: str, key: str) -> Result | None:
        """Return a finished result; whatever else lies in its place is set aside and forgotten."""
        artifact = Result(stage, key, self._path(stage, key))
        if not os.path.lexists(artifact.path):
            return None
        fault = fault_of(artifact)
        if fault is None:
            return artifact
        aside = set_aside(artifact.path)
        if aside is not None:
            log.warning("%s: %s; set aside as %s and made again", artifact.name, fault, aside.name)
        return None

    def sealed(self, stage: str, key: str) -> Result | None:
        """Return a result that was all done when its run was stopped, and put it in its place."""
        workspace = self.partial(stage, key)
        if not os.path.lexists(workspace / RECORD):
            return None
        if fault_of(Result(stage, key, workspace)) is None:
            return self._place(stage, key)
        remove(workspace / RECORD)
        return None

    def partial(self, stage: str, key: str) -> Path:
        """Name the folder of an unfinished result."""
        path = self._path(stage, key)
        return path.with_name(path.name + ".partial")

    def commit(
        self, stage: str, key: str, recipe: Mapping[str, Any], made: Mapping[str, Any]
    ) -> Result:
        """Seal the unfinished result: record its checksums, then rename it.

        Args:
            stage: Name of the stage.
            key: Its fingerprint.
            recipe: What the fingerprint was taken of.
            made: Facts that do not count as content: seconds, versions.
        """
        workspace = self.partial(stage, key)
        sweep(workspace)
        open_up(workspace)
        flush_all(workspace)
        write_json(
            workspace / RECORD,
            {
                "stage": stage,
                "fingerprint": key,
                "recipe": recipe,
                "files": checksums(workspace),
                "made": made,
            },
        )
        return self._place(stage, key)

    def _place(self, stage: str, key: str) -> Result:
        """Rename a sealed result; its ledger, which is no part of it, has done its work."""
        path = self._path(stage, key)
        self.partial(stage, key).rename(path)
        flush(self.root)
        (path / LEDGER).unlink(missing_ok=True)
        return Result(stage, key, path)

    @contextmanager
    def lock(self, stage: str, key: str) -> Iterator[None]:
        """Hold a result for making it; whoever comes second waits and says so.

        A finished result needs no lock, so somebody who may only read it is not asked for one.

        Raises:
            UserError: If it has to be made, and this is not allowed here.
        """
        path = self.root / f".{stage}-{key[:12]}.lock"
        lock = FileLock(path, mode=0o666)  # others who share the folder may make it another time
        try:
            self._acquire(lock, stage)
        except PermissionError as error:
            if self.find(stage, key) is None:
                closed = f"{path} belongs to somebody else: delete it, or set outputs= to a folder "
                raise UserError(self._closed or f"{closed}of your own") from error
        try:
            yield
        finally:
            lock.release()

    def _acquire(self, lock: FileLock, stage: str) -> None:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("%s: another run is making it; waiting", stage)
            lock.acquire()

    def _path(self, stage: str, key: str) -> Path:
        return self.root / result_name(stage, key)


def fault_of(artifact: Result) -> str | None:
    """Say in which way a folder is not the finished result that it is called; None if it is."""
    if not artifact.path.is_dir():
        return "it is no folder"
    if not is_file(artifact.path / RECORD):
        there = os.path.lexists(artifact.path / RECORD)
        return f"its {RECORD} is no file" if there else f"it has no {RECORD}"
    try:
        record = artifact.record()
        sound = _is_sound(record, artifact)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return f"its {RECORD} can't be read"
    if not sound:
        return f"its {RECORD} is of another result or was changed"
    for path in artifact.path.rglob("*"):
        if not (path.is_file() or path.is_dir()):
            return f"{path.relative_to(artifact.path)} is no file"
    expected: dict[str, str] = record["files"]
    found = checksums(artifact.path)
    if found == expected:
        return None
    different = sorted(name for name in expected | found if expected.get(name) != found.get(name))
    return f"checksum mismatch of {', '.join(different[:3])}"


def _is_sound(record: Mapping[str, Any], artifact: Result) -> bool:
    """Tell whether a record is that of a result: its recipe gives the fingerprint that names it."""
    named = (record["stage"], record["fingerprint"], fingerprint(record["recipe"]))
    seconds = record["made"].get("seconds", 0)
    return (
        named == (artifact.stage, artifact.fingerprint, artifact.fingerprint)
        and all(isinstance(text, str) for item in record["files"].items() for text in item)
        and isinstance(seconds, int | float)
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
