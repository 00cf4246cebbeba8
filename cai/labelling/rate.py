"""How often a server may be asked, and for how long it asks to be left alone."""

from __future__ import annotations

import re
import threading
import time
from contextlib import suppress
from email.utils import parsedate_to_datetime

import anyio

LONGEST_RETRY_AFTER = 120.0
"""A server that asks for more patience than this is asked again all the same."""


class RateLimit:
    """Lets requests of all threads pass one by one, ``1 / per_second`` apart."""

    def __init__(self, per_second: float) -> None:
        """Start open."""
        self._gap, self._next, self._lock = 1 / per_second, 0.0, threading.Lock()

    async def wait(self) -> None:
        """Return when it is this request's turn."""
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next)
            self._next = start + self._gap
        await anyio.sleep(start - now)

    def pause(self, seconds: float) -> None:
        """Let nobody pass for a while."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


def retry_after(value: str | None) -> float:
    """Read a Retry-After header, seconds or a date, as seconds from now."""
    if value is None:
        return 0.0
    seconds = 0.0
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value.strip()):
        seconds = float(value)
    else:
        with suppress(ValueError, TypeError, OverflowError):
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)
