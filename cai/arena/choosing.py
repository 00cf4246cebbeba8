"""Who chooses, and what a choice is when it is written."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from typing import Any

from cai.errors import UserError

CHOICES = {"left": "a", "right": "b", "tie": "tie"}
"""What a person says, and what is written: ``a`` is the system whose reply stood on the left."""
LONGEST_NAME = 40


def name_of(text: str | None) -> str:
    """Return a person's name as it is written, whatever blanks and accents are made of.

    Raises:
        UserError: If it is no name.
    """
    known = unicodedata.normalize("NFC", " ".join((text or "").split()))
    if not known or len(known) > LONGEST_NAME or not known.isprintable():
        raise UserError(f"Please give a name of 1 to {LONGEST_NAME} letters.")
    return known


def choice_row(annotator: str, axis: str, systems: tuple[str, str], said: str) -> dict[str, Any]:
    """Write a choice, but for what it is about.

    Args:
        annotator: Who chose.
        axis: On what.
        systems: Whose replies stood on the left and on the right.
        said: ``left``, ``right`` or ``tie``.
    """
    return {
        "a": systems[0],
        "b": systems[1],
        "axis": axis,
        "choice": CHOICES[said],
        "annotator": annotator,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
