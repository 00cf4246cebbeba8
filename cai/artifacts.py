"""Content-addressed stage outputs: the same stage, settings and inputs are computed once.

A result lives in ``<stage>-<fingerprint>/``. While it is being made the folder's name ends in
``.partial``; it is renamed when ``artifact.json``, written last, holds the checksum of every file.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cai.errors import UserError

log = logging.getLogger(__name__)

RECORD = "artifact.json"
SCRATCH = (".tmp*", "*.tmp")
"""Names of files that are about to replace others, by us and by safetensors; a kill leaves them."""


@dataclass(frozen=True)
class Artifact:
    """A finished stage output: an immutable folder and the name of how it came to be."""

    stage: str
    fingerprint: str
    path: Path

    @property
    def name(self) -> str:
        """Folder name, also the name in the tracker."""
        return self.path.name

    def record(self) -> dict[str, Any]:
        """Read what is known about its making."""
        record: dict[str, Any] = json.loads((self.path / RECORD).read_text())
        return record


def fingerprint(recipe: Mapping[str, Any]) -> str:
    """Name a result by everything that can change it."""
    text = json.dumps(recipe, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def result_name(stage: str, key: str) -> str:
    """Return the name of a result's folder."""
    return f"{stage}-{key[:12]}"


def checksums(folder: Path) -> dict[str, str]:
    """Map every file below a folder, its record left out, to its sha256."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): _sha256(path)
        for path in files
        if path.relative_to(folder).as_posix() != RECORD
    }


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of it."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    scratch = path.with_name(path.name + ".tmp")
    scratch.write_text(text, encoding="utf-8")
    Path(scratch).replace(path)


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows atomically, one JSON object a line."""
    scratch = path.with_name(path.name + ".tmp")
    with scratch.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    Path(scratch).replace(path)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read rows that a stage wrote."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


class Store:
    """The folder of all artifacts; parallel runs may share it."""

    def __init__(self, root: Path) -> None:
        """Use ``root``, made if need be.

        Raises:
            UserError: If it can't be written to.
        """
        self.root = root
        try:
            root.mkdir(parents=True, exist_ok=True)
            probe = root / f".writable-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UserError(
                f"outputs={root.parent} can't be written to ({error.strerror}): set outputs= to a "
                "folder that you may write"
            ) from error

    def find(self, stage: str, key: str) -> Artifact | None:
        """Return a finished result; one whose files changed since is set aside and forgotten."""
        artifact = Artifact(stage, key, self._path(stage, key))
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
    ) -> Artifact:
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
        return Artifact(stage, key, path)

    @contextmanager
    def lock(self, stage: str, key: str) -> Iterator[None]:
        """Hold a result for making it; whoever comes second waits and says so."""
        path = self.root / f".{stage}-{key[:12]}.lock"
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.info("%s: another run is making it; waiting", stage)
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _path(self, stage: str, key: str) -> Path:
        return self.root / result_name(stage, key)


def _fault(artifact: Artifact) -> str | None:
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
