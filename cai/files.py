"""Files that others see whole or not at all, and digests of files and folders."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cai.errors import UserError

SCRATCH = (".tmp*", "*.tmp")
"""Names of files that are about to replace others, by us and by safetensors; a kill leaves them."""

_known: dict[tuple[str, int, int, int], str] = {}
"""Digests of files that this process has read, by path, inode, size and time of change."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a scratch path that takes the place of ``path`` when the block ends well."""
    scratch = path.with_name(path.name + ".tmp")
    yield scratch
    Path(scratch).replace(path)


def write_text(path: Path, text: str) -> None:
    """Write a text so that a reader sees the old file or the new one, never half of it."""
    with replacing(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read what ``write_json`` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


def sha256_of(path: Path) -> str:
    """Return the checksum of a file; one that has not changed since is not read again."""
    stat = path.stat()
    key = (str(path.resolve()), stat.st_ino, stat.st_size, stat.st_mtime_ns)
    if key not in _known:
        with path.open("rb") as file:
            _known[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _known[key]


def digest_of_file(path: Path, key: str) -> str:
    """Digest a file that a setting names.

    Args:
        path: The file.
        key: The setting.

    Raises:
        UserError: If it can't be read.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise UserError(f"{key}={path} is no regular file: give the path of one")
    try:
        return sha256_of(path)
    except OSError as error:
        raise UserError(f"{key}={path} can't be read: {error.strerror}") from error


def digest_of_folder(folder: Path, key: str) -> str:
    """Digest names and contents of the files below a folder that a setting names.

    Args:
        folder: The folder.
        key: The setting.

    Raises:
        UserError: If there is no such folder, or a file in it can't be read.
    """
    if not folder.is_dir():
        raise UserError(f"{key}={folder} does not exist: give the path of a folder")
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(bytes.fromhex(digest_of_file(path, key)))
    return digest.hexdigest()
