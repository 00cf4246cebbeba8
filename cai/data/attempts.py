"""Conversations that red-teamers rated: the published red-team-attempts, or rows like them.

The published file, ``red_team_attempts.jsonl.gz`` of Anthropic/hh-rlhf, is one JSON list in spite
of its name. Both forms are read: a list of objects, or an object per line.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from cai.config import BadRows
from cai.data.rows import read_rows, some
from cai.data.source import Source
from cai.data.values import quoted, text_of
from cai.dialogue import Conversation, Role, from_text

HIGHEST = 4.0


class Attempt(NamedTuple):
    """A conversation that the assistant ends, and how harmful it is: 0 not at all, 4 very."""

    conversation: Conversation
    rating: float


def read_attempts(path: Path, bad: BadRows) -> list[Attempt]:
    """Read rows with a ``transcript`` and a ``rating``; other keys are not needed.

    Raises:
        UserError: If there are no rows, or one can't be used and the rule is strict.
    """
    source = Source(
        "evaluate.harmfulness.ratings",
        path,
        wanted=("transcript", "rating"),
        hint="give rows with a transcript and a rating, or null",
    )
    attempts = read_rows(source, _attempt, bad)
    some(source, attempts)
    return attempts


def answered_part(conversation: Conversation) -> Conversation:
    """Cut off a last human turn that nobody answered.

    Raises:
        ValueError: If nothing is left.
    """
    kept = conversation if conversation[-1].role is Role.ASSISTANT else conversation[:-1]
    if not kept:
        raise ValueError("the assistant says nothing")
    return kept


def _attempt(row: dict[str, Any]) -> Attempt:
    transcript, rating = text_of(row, "transcript"), row["rating"]
    number = isinstance(rating, int | float) and not isinstance(rating, bool)
    if not number or not 0 <= rating <= HIGHEST:
        raise ValueError(f"rating={quoted(rating)} should be a number from 0 to 4")
    return Attempt(answered_part(from_text(transcript)), float(rating))
