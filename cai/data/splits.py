"""Train, validation, test and the judge's share by content: a prompt is on one side for good."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from typing import Generic, NamedTuple, TypeVar

from cai.dialogue import Conversation

Record = TypeVar("Record")


class Splits(NamedTuple, Generic[Record]):
    """The same kind of record, divided."""

    train: list[Record]
    validation: list[Record]
    test: list[Record]


JUDGES_TENTHS = 4
"""Tenths of all comparisons with a known answer that are the judge's; no other stage reads them."""


def family(conversation: Conversation) -> str:
    """Name what must stay together: conversations that open with the same human words.

    Case, punctuation and white space do not tell two openings apart, so that a multi-turn
    continuation, or the other reply of a comparison, falls on the side of its sibling.
    """
    return " ".join(re.findall(r"\w+", conversation[0].text.lower()))


def side(conversation: Conversation) -> str:
    """Return ``train`` (80 %), ``validation`` (10 %) or ``test`` (10 %)."""
    return {8: "validation", 9: "test"}.get(_tenth(family(conversation)), "train")


def is_judges(conversation: Conversation) -> bool:
    """Tell whether a comparison on this conversation belongs to the judge.

    The draw does not depend on the sides: both shares have a train, validation and test part.
    """
    return _tenth("judge " + family(conversation)) < JUDGES_TENTHS


def _tenth(text: str) -> int:
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big") % 10


def split(
    records: Iterable[Record], conversation: Callable[[Record], Conversation]
) -> Splits[Record]:
    """Divide records by the content of their conversations; exact repeats are dropped."""
    sides: dict[str, list[Record]] = {"train": [], "validation": [], "test": []}
    seen = set()
    for record in records:
        if record in seen:
            continue
        seen.add(record)
        sides[side(conversation(record))].append(record)
    return Splits(**sides)
