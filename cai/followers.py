"""A process that another has started ends with it, whenever that is, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LEADER = "CAI_LEADER"
"""Environment variable: the process that starts the others of its machine."""

_scratch: Path | None = None
_following = False


def was_started() -> bool:
    """Tell whether Lightning has started this process, for another one of this machine."""
    return "LOCAL_RANK" in os.environ and "RANK" not in os.environ


def lead() -> None:
    """Tell the processes that Lightning is about to start who starts them."""
    os.environ[LEADER] = str(os.getpid())


def follow() -> None:
    """End this process when its leader is gone, which it may be already.

    Lightning's launcher looks after the other direction.
    """
    global _following
    if _following:
        return
    _following = True
    leader = int(os.environ.get(LEADER, os.getppid()))
    threading.Thread(target=_end_with, args=(leader,), daemon=True).start()


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a folder for a block, which also goes when this process ends with its leader."""
    global _scratch
    with tempfile.TemporaryDirectory(prefix="cai-", ignore_cleanup_errors=True) as folder:
        _scratch = Path(folder)
        yield _scratch


def _end_with(leader: int) -> None:
    while os.getppid() == leader:
        time.sleep(1)
    if _scratch is not None:
        shutil.rmtree(_scratch, ignore_errors=True)
    os.kill(os.getpid(), signal.SIGKILL)
