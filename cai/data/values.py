"""Values from outside: parsed within bounds, checked, and quoted no longer than a message bears."""

from __future__ import annotations

import json
import reprlib
from typing import Any

LONGEST_TEXT = 1_000_000
"""Characters of a text: more than any model's context, and little enough to be tokenised."""
DEEPEST = 32
"""Lists and objects within each other."""
_TOO_DEEP = f"holds values within values beyond {DEEPEST} levels"


def parse_json(data: bytes) -> tuple[Any, str | None]:
    """Read one JSON value; return it, or None and what is wrong with it."""
    try:
        return json.loads(data.decode()), None
    except UnicodeDecodeError:
        return None, "is not UTF-8 text"
    except json.JSONDecodeError as error:
        return None, f"is not JSON: {error.msg}"
    except ValueError:  # Python reads no integer beyond some thousand digits
        return None, "holds a number of too many digits"
    except RecursionError:
        return None, _TOO_DEEP


def fault_of(value: Any) -> str | None:
    """Say what makes a value unbearable wherever it stands in a row; None if nothing does."""
    level = [value]
    for _ in range(DEEPEST + 1):
        texts = (item for item in level if isinstance(item, str))
        if fault := next(filter(None, map(_fault_of_text, texts)), None):
            return fault
        boxes = [item for item in level if isinstance(item, dict | list)]
        if not boxes:
            return None
        level = [part for box in boxes for part in _parts(box)]
    return _TOO_DEEP


def _parts(box: dict[str, Any] | list[Any]) -> list[Any]:
    return [*box, *box.values()] if isinstance(box, dict) else box


def _fault_of_text(text: str) -> str | None:
    if len(text) > LONGEST_TEXT:
        return f"holds a text of {len(text):,} characters, and at most {LONGEST_TEXT:,} are read"
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        return "holds bytes or half a surrogate pair that are no UTF-8 text"
    return None


def quoted(value: object, length: int = 60, *, bare: bool = False) -> str:
    """Return a value as code, or a text ``bare``, cut so that a message can hold it."""
    if bare:
        text = " ".join(str(value).split())
        return text if len(text) <= length else f"{text[: length - 3]}..."
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother, short.maxlong = 2, length, length, length
    return short.repr(value)


def text_of(row: dict[str, Any], key: str) -> str:
    """Return a text of a row, stripped.

    Raises:
        KeyError: If it is missing.
        ValueError: If it is not a text or empty.
    """
    value = row[key]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{key!r} should be a text that is not empty")
    return value.strip()
