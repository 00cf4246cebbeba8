"""Ctrl-C that can't get lost, and SIGTERM, which means the same.

Libraries swallow a KeyboardInterrupt that arrives while they are imported or in a callback of
theirs, and the run would go on as if nothing had been said. So it is noted as well as raised, and
raised again where work begins.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType

_seen: list[int] = []


def listen() -> None:
    """Note both signals from now on, in the main thread; one that gets lost makes no noise."""
    _seen.clear()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _note)
    sys.unraisablehook = _report


def check() -> None:
    """Raise an interrupt that somebody else has swallowed.

    Raises:
        KeyboardInterrupt: If either signal came since ``listen``.
    """
    if _seen:
        raise KeyboardInterrupt


def exit_code() -> int:
    """Return what a shell expects of a command that a signal ended: 130, or 143 for SIGTERM."""
    return 128 + (_seen[0] if _seen else signal.SIGINT)


def _note(number: int, frame: FrameType | None) -> None:
    _seen.append(number)
    raise KeyboardInterrupt


def _report(lost: sys.UnraisableHookArgs) -> None:
    if not issubclass(lost.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(lost)
