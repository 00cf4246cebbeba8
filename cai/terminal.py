"""Foreign text on its way to a terminal or a log: it may be read there, but never obeyed."""

from __future__ import annotations

import logging
import re
import sys
from contextlib import suppress

_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor, screen
    r"|(?:\x1b[PX\]^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x80-\x9f]*(?:\x07|\x1b\\|\x9c)"  # OSC, DCS
    r"|\x1b[ -/]*[0-~]"
)
"""Escape sequences of ECMA-48, in 7 and in 8 bits."""
LONGEST = 4000
"""Characters of a sentence; the choices that some of them list are many."""
_LOOKED_AT = 1 << 16
"""Of a longer text only the beginning is looked at."""


def one_line(text: str, limit: int = 200) -> str:
    """Return foreign text on one line, without escape sequences and invisible characters.

    Among the latter are controls, marks that turn the direction of writing, and lone surrogates.

    Args:
        text: From a server, a file or whoever else.
        limit: Most characters that are kept; what is cut off leaves three dots.
    """
    plain = _SEQUENCE.sub("", text[:_LOOKED_AT])
    shown = " ".join("".join(c for c in plain if c.isprintable() or c.isspace()).split())
    return shown if len(shown) <= limit else f"{shown[: limit - 3].rstrip()}..."


def plain(text: str) -> str:
    """Return foreign text with its lines, without escape sequences and invisible characters."""
    kept = _SEQUENCE.sub("", text)
    return "".join(c for c in kept if c.isprintable() or c in "\n\t")


def readable(text: str) -> str:
    """Return foreign text that is still growing, without what a terminal would obey.

    Each character is looked at alone, so that nothing changes in what has been shown already; of
    an escape sequence the letters after the escape remain, which ``plain`` takes away.
    """
    lines = text.replace("\r\n", "\n").replace("\t", "    ")
    return "".join(c for c in lines if c.isprintable() or c == "\n")


def say(text: str) -> None:
    """Write a sentence to standard error; one that nobody reads any more is lost without noise."""
    with suppress(BrokenPipeError):
        sys.stderr.write(f"{plain(text)[:LONGEST]}\n")


class PlainFormatter(logging.Formatter):
    """Formats what is logged so that no name, path or answer in it gives orders to a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        return plain(super().format(record))
