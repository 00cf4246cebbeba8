"""Files that others see whole or not at all, and digests of files and folders.

All that the project keeps is written here: to a scratch file, which is flushed to the disk and then
renamed, and the folder is flushed after it. So no file's existence means anything unless it was
renamed into place, and after a power cut it holds what it held before or all that is new.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_IMODE
from typing import Any

from cai import parts
from cai.errors import UserError

SCRATCH = (".tmp*", "*.tmp")
"""Names of files that are about to replace others, by us and by safetensors; a kill leaves them."""

ASIDE = ".corrupt"
"""How a name ends of what was set aside."""

NO_SUCH_FLUSH = {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EISDIR}
"""What some file systems say when a folder is to be flushed."""

_known: dict[tuple[str, int, int, int], str] = {}
"""Digests of files that this process has read, by path, inode, size and time of change."""


# Writing


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a scratch path that takes the place of ``path`` when the block ends well.

    Raises:
        OSError: If it can't be written, also where a library calls that by another name.
    """
    scratch = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with _as_os_error(path):
            yield scratch
            _put(scratch, path)
    except BaseException:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)
        raise


@contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """Yield a scratch folder, whose files take their places in ``folder`` when the block ends well.

    For libraries that write several files. Each is whole or not there; all of them are there only
    when a file that is written after them is.
    """
    scratch = folder / f".{uuid.uuid4().hex[:8]}.tmp"
    scratch.mkdir(parents=True)
    try:
        with _as_os_error(folder):
            yield scratch
            for path in sorted(path for path in scratch.rglob("*") if path.is_file()):
                target = folder / path.relative_to(scratch)
                target.parent.mkdir(parents=True, exist_ok=True)
                _put(path, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _put(scratch: Path, path: Path) -> None:
    """Flush a scratch file, rename it and flush its folder; take it down if somebody keeps book."""
    flush(scratch)
    if parts.workspace_of(path) is not None:
        parts.expect(path, _digest(scratch))
    scratch.replace(path)
    flush(path.parent)
    parts.stands(path)


@contextmanager
def _as_os_error(path: Path) -> Iterator[None]:
    """Give errors of the disk one class and the name of a file."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise
    except Exception as error:  # of safetensors, which is written in Rust
        found = re.search(r"\(os error (\d+)\)", str(error))
        if found is None:
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number), str(path)) from error


def write_text(path: Path, text: str) -> None:
    """Write a text so that a reader sees the old file or the new one, never half of it."""
    with replacing(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def copy_file(source: Path, target: Path) -> None:
    """Copy a file; the copy is whole or not there."""
    with replacing(target) as scratch:
        shutil.copyfile(source, scratch)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all below it, if it is there."""
    if not os.path.lexists(path):
        return
    parts.leaves(path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what a kill left in the middle of writing."""
    for pattern in SCRATCH:
        for path in list(folder.rglob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def claim(folder: Path) -> Path:
    """Make a new folder and return its path, with a number behind its name if that is taken."""
    for number in itertools.count(1):
        path = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            if not path.is_dir():  # a file stands there, or in the place of a folder above
                raise
    raise AssertionError


def set_aside(path: Path) -> Path | None:
    """Give what lies at a path another name, with a number if that is taken; return it.

    A part of a result in the making leaves its folder, beside which there is one for such parts.
    None: somebody else was faster.
    """
    workspace = parts.workspace_of(path)
    aside = path.with_name(path.name + ASIDE)
    if workspace is not None:
        aside = workspace.with_name(workspace.name + ASIDE) / path.relative_to(workspace)
        parts.leaves(path)
    aside.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        target = aside if number == 1 else aside.with_name(f"{aside.name}-{number}")
        if os.path.lexists(target):
            continue
        try:
            path.rename(target)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno not in {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR}:
                raise
        else:
            flush(path.parent)
            return target
    raise AssertionError


# Flushing


def flush(path: Path) -> None:
    """Wait until what a file holds is on the disk, or the names in a folder where that can be."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in NO_SUCH_FLUSH:
            raise
    finally:
        os.close(number)


def flush_all(folder: Path) -> None:
    """Wait until everything below a folder is on the disk, whoever wrote it."""
    for path in folder.rglob("*"):
        if parts.is_file(path) or path.is_dir():
            flush(path)
    flush(folder)


# Reading


def open_up(folder: Path) -> None:
    """Let whoever may read a folder read its files: libraries write weights for the owner alone."""
    shared = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        mode = path.lstat().st_mode
        if path.is_file() and not path.is_symlink() and shared & ~mode:
            with suppress(OSError):  # on a disk that knows no modes
                path.chmod(S_IMODE(mode) | shared)


def read_json(path: Path) -> Any:
    """Read what ``write_json`` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


def sha256_of(path: Path) -> str:
    """Return the checksum of a file; one that has not changed since is not read again."""
    stat = path.stat()
    key = (str(path.resolve()), stat.st_ino, stat.st_size, stat.st_mtime_ns)
    if key not in _known:
        _known[key] = _digest(path)
    return _known[key]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
        if path.exists() and not path.is_file():  # a device or a pipe may never come to an end
            raise UserError(f"{key}={path} is not a file: give the path of one")
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
