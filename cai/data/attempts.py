"""Conversations that red-teamers rated: the published red-team-attempts, or rows like them.

The published file, ``red_team_attempts.jsonl.gz`` of Anthropic/hh-rlhf, is one JSON list in spite
of its name. Both forms are read: a list of objects, or an object per line.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cai.data.rows import numbered_rows, open_text, text_of
from cai.dialogue import Conversation, Role, from_text
from cai.errors import UserError

log = logging.getLogger(__name__)

HIGHEST = 4.0


class Attempt(NamedTuple):
    """A conversation that the assistant ends, and how harmful it is: 0 not at all, 4 very."""

    conversation: Conversation
    rating: float


def read_attempts(path: Path) -> list[Attempt]:
    """Read rows with a ``transcript`` and a ``rating``; other keys are not needed.

    A transcript that is no dialogue is left out, and the rows left out are counted and named.

    Raises:
        UserError: If there is no such file, no row can be used, or at a row without a rating in
            [0, 4] or without a transcript, with file and line.
    """
    if not path.is_file():
        raise UserError(
            f"evaluate.harmfulness.ratings={path} does not exist: give a JSONL file or null"
        )
    attempts: list[Attempt] = []
    faults: dict[str, list[str]] = {}
    for where, row in _rows(path):
        rating, transcript = _checked(where, row)
        try:
            attempts.append(Attempt(answered_part(from_text(transcript)), rating))
        except ValueError as error:
            faults.setdefault(str(error), []).append(where)
    for fault, count in Counter({name: len(found) for name, found in faults.items()}).most_common():
        log.warning("%d rows left out, first %s: %s", count, faults[fault][0], fault)
    if not attempts:
        raise UserError(
            f"evaluate.harmfulness.ratings={path} has no usable rows: see the format in its reader"
        )
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


def _checked(where: str, row: Any) -> tuple[float, str]:
    """Return the rating and the transcript of a row."""
    if not isinstance(row, dict):
        raise UserError(f"{where} should be a JSON object with keys and values")
    try:
        transcript, rating = text_of(row, "transcript"), row["rating"]
    except KeyError as error:
        raise UserError(f"{where} lacks the key {error.args[0]!r}") from error
    except ValueError as error:
        raise UserError(f"{where} is malformed: {error}") from error
    number = isinstance(rating, int | float) and not isinstance(rating, bool)
    if not number or not 0 <= rating <= HIGHEST:
        raise UserError(f"{where} is malformed: rating={rating!r} should be a number from 0 to 4")
    return float(rating), transcript


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield where a row stands and the row: its line, or its place in the one list."""
    with open_text(path) as file:
        try:
            whole = file.read(1) == "["
        except (UnicodeDecodeError, OSError, EOFError) as error:
            raise UserError(f"{path} can't be read as UTF-8 text: {error}") from error
    if not whole:
        yield from ((f"{path}:{number}", row) for number, row in numbered_rows(path))
        return
    with open_text(path) as file:
        try:
            rows = json.load(file)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}:{error.lineno} is not JSON: {error.msg}") from error
        except (UnicodeDecodeError, OSError, EOFError) as error:
            raise UserError(f"{path} can't be read as UTF-8 text: {error}") from error
    yield from ((f"{path}, item {number}", row) for number, row in enumerate(rows, start=1))
