"""A folder that appears when all of it has been written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cai.errors import UserError
from cai.files import open_up


def check_free(target: Path) -> None:
    """Refuse to write over what is there.

    Raises:
        UserError: If a file or a folder that holds something has the name.
    """
    if target.is_dir() and not any(target.iterdir()):
        return
    if target.exists():
        raise UserError(f"--to={target} is there already: name a new folder, or remove it first")


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """Yield an empty folder that gets the name ``target`` when the block ends well.

    Raises:
        UserError: If it can't be written.
    """
    check_free(target)
    scratch = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        scratch.mkdir(parents=True)
        yield scratch
        open_up(scratch)
        if target.exists():
            target.rmdir()
        scratch.rename(target)
    except OSError as error:
        raise UserError(
            f"--to={target} can't be written ({error.strerror or error}): name a folder on a disk "
            "with room"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
