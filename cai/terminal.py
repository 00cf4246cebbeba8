"""Foreign text on its way to a terminal or a log: it may be read there, but never obeyed."""

from __future__ import annotations

import re

_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor, screen
    r"|(?:\x1b[PX\]^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x80-\x9f]*(?:\x07|\x1b\\|\x9c)"  # OSC, DCS
    r"|\x1b[ -/]*[0-~]"
)
"""Escape sequences of ECMA-48, in 7 and in 8 bits."""
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


def readable(text: str) -> str:
    """Return foreign text without what a terminal would obey; its lines stay as they are.

    Each character is looked at alone, so a text that is still growing never changes in what has
    been shown of it; of an escape sequence the letters after the escape remain.
    """
    lines = text.replace("\r\n", "\n").replace("\t", "    ")
    return "".join(c for c in lines if c.isprintable() or c == "\n")
