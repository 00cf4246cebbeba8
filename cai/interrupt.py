"""Ctrl-C that can't get lost.

Libraries swallow a KeyboardInterrupt that arrives while they are imported or in a callback of
theirs, and the run would go on as if nothing had been said. So it is noted as well as raised, and
raised again where work begins.
"""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType

_seen = threading.Event()


def listen() -> None:
    """Note Ctrl-C from now on, in the main thread; one that gets lost makes no noise."""
    _seen.clear()
    signal.signal(signal.SIGINT, _note)
    sys.unraisablehook = _report


def check() -> None:
    """Raise an interrupt that somebody else has swallowed.

    Raises:
        KeyboardInterrupt: If Ctrl-C was pressed since ``listen``.
    """
    if _seen.is_set():
        raise KeyboardInterrupt


def _note(number: int, frame: FrameType | None) -> None:
    _seen.set()
    raise KeyboardInterrupt


def _report(lost: sys.UnraisableHookArgs) -> None:
    if not issubclass(lost.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(lost)
