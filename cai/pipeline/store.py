"""Content-addressed stage outputs: the same stage, settings and inputs are computed once.

A result lives in ``<stage>-<fingerprint>/``. While it is being made the folder's name ends in
``.partial``; it is renamed when ``artifact.json``, written last, holds the checksum of every file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cai.errors import UserError
from cai.files import SCRATCH, write_json
from cai.pipeline.stage import RECORD, Result, result_name

log = logging.getLogger(__name__)


def fingerprint(recipe: Mapping[str, Any]) -> str:
    """Name a result by everything that can change it."""
    text = json.dumps(recipe, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def checksums(folder: Path) -> dict[str, str]:
    """Map every file below a folder, its record left out, to its sha256."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): _sha256(path)
        for path in files
        if path.relative_to(folder).as_posix() != RECORD
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
        """Return a finished result; one whose files changed since is set aside and forgotten."""
        artifact = Result(stage, key, self._path(stage, key))
        if not (artifact.path / RECORD).exists():
            return None
        fault = _fault(artifact)
        if fault is None:
            return artifact
        aside = _free_name(artifact.path.with_name(artifact.path.name + ".corrupt"))
        Path(artifact.path).replace(aside)
        log.warning("%s: %s; set aside as %s and made again", artifact.name, fault, aside.name)
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
        for pattern in SCRATCH:
            for path in workspace.rglob(pattern):
                path.unlink()
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
        path = self._path(stage, key)
        if path.exists():  # finished before, but without its record
            shutil.rmtree(path)
        Path(workspace).replace(path)
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


def _fault(artifact: Result) -> str | None:
    try:
        expected = artifact.record()["files"]
    except (json.JSONDecodeError, KeyError, UnicodeDecodeError):
        return f"its {RECORD} can't be read"
    found = checksums(artifact.path)
    if found == expected:
        return None
    different = sorted(name for name in expected | found if expected.get(name) != found.get(name))
    return f"checksum mismatch of {', '.join(different[:3])}"


def _free_name(path: Path) -> Path:
    candidate, number = path, 1
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
