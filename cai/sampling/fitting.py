"""Rows that do not fit the model's context: found, counted and named before anything starts."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeVar

from cai.config import TooLong
from cai.constitution.prompts import Question
from cai.data.records import Comparison, Example, Prompt
from cai.data.sources import Corpus
from cai.data.splits import Splits
from cai.dialogue import Conversation, assistant, human
from cai.errors import UserError
from cai.lm.chat import ChatFormat

log = logging.getLogger(__name__)

Row = TypeVar("Row", Prompt, Example, Comparison)
Rooms = Mapping[str, int]
"""Sets of the data that a stage reads, with the tokens that it puts to a row of each."""

WORD = "heron"
ANY_PROMPT: Conversation = (human(WORD),)
"""Stands for a prompt where only the words around it are counted."""


class Sifted(NamedTuple, Generic[Row]):
    """The rows of a set that fit, and what is to be said of the others; None if all do."""

    rows: Splits[Row]
    note: str | None


@dataclass(frozen=True)
class Fitting:
    """What fits, and what becomes of the rest.

    Attributes:
        chat: Counts tokens.
        too_long: Whether rows are left out, refused or shortened.
        stage: Who asks, for messages.
    """

    chat: ChatFormat
    too_long: TooLong
    stage: str

    def corpus(self, corpus: Corpus, rooms: Rooms) -> Corpus:
        """Return a corpus of rows that fit, and say what does not.

        Args:
            corpus: As it was read.
            rooms: By the set that is read, the tokens to leave for what else is said to a prompt.

        Raises:
            UserError: If a row does not fit and ``data.too_long=error``, or a set is left empty.
        """
        fitting: dict[str, Any] = {}
        for name, room in rooms.items():
            found = self.sift(name, getattr(corpus, name), room)
            if found.note is not None:
                log.warning("%s", found.note)
            fitting[name] = found.rows
        return replace(corpus, **fitting)

    def notes(self, corpus: Corpus, rooms: Rooms) -> list[str]:
        """Say for every set how many rows do not fit, and what becomes of them.

        Raises:
            UserError: As ``corpus`` does.
        """
        found = (self.sift(name, getattr(corpus, name), room) for name, room in rooms.items())
        return [each.note for each in found if each.note is not None]

    def sift(self, name: str, splits: Splits[Row], room: int) -> Sifted[Row]:
        """Return the rows of one set that fit, and a note on the others.

        Args:
            name: Of the set, for messages.
            splits: Its rows; each is looked at once.
            room: Tokens to leave for what else is said to a prompt.

        Raises:
            UserError: If a row does not fit and ``data.too_long=error``, or a split is left empty.
        """
        kept: list[list[Row]] = []
        faults: list[Row] = []
        for rows in splits:
            wrong = [row for row in rows if not self.fits(row, room)]
            faults += wrong
            kept.append(self._without(rows, wrong, room))
        if not faults:
            return Sifted(splits, None)
        first = _prompt(faults[0]).id
        needs = f"model.context={self.chat.context} with the {room} tokens that follow"
        if self.too_long is TooLong.error:
            raise UserError(
                f"{self.stage}: {first} of {name} does not fit {needs}: raise model.context, or "
                "set data.too_long=skip"
            )
        for left, rows in zip(kept, splits, strict=True):
            if rows and not left:
                raise UserError(
                    f"{self.stage}: none of {len(rows)} {name} rows fits {needs}: raise "
                    "model.context, or give shorter data"
                )
        lost = "shortened" if self.too_long is TooLong.cut_left else "left out"
        return Sifted(
            Splits(*kept),
            f"{self.stage}: {len(faults)} of {sum(map(len, splits))} {name} rows do not fit "
            f"{needs}, and are {lost} (data.too_long); first {first}",
        )

    def _without(self, rows: list[Row], wrong: Sequence[Row], room: int) -> list[Row]:
        """Return the rows that fit; the others only if they may be shortened, and can be."""
        if not wrong:
            return rows
        cut = self.too_long is TooLong.cut_left
        ids = {id(row) for row in wrong}
        treated = [
            row if id(row) not in ids else (self._cut(row, room) if cut else None) for row in rows
        ]
        return [row for row in treated if row is not None]

    def fits(self, row: Prompt | Example | Comparison, room: int) -> bool:
        """Tell whether a row fits; only one that may be too long is encoded.

        A tokenizer makes at most one token of a byte, and one more of a text's beginning.
        """
        limit = self.chat.context - room
        talk = _prompt(row).conversation
        texts = [*(turn.text for turn in talk), *_replies(row)]
        around, more = self._overhead
        most = sum(map(_most, texts)) + around + more * (len(talk) // 2)
        if most < limit:
            return True
        replies = sum(len(self.chat.response(reply)) for reply in _replies(row))
        return self.chat.length(talk) + replies < limit

    def room_of(self, questions: Iterable[Question]) -> int:
        """Count what the longest of some requests adds to the prompt that it is about."""
        longest = max(len(self.chat.unbounded_prompt(*question)) for question in questions)
        return longest - self.chat.length(ANY_PROMPT)

    @cached_property
    def _overhead(self) -> tuple[int, int]:
        """Count what the format writes around one turn, and around each two more."""
        one = self.chat.length(ANY_PROMPT)
        three = (*ANY_PROMPT, assistant(WORD), human(WORD))
        return one, self.chat.length(three) - one

    def _cut(self, row: Row, room: int) -> Row | None:
        """Leave out the oldest turns, then the beginning of the first that is left."""
        talk: Conversation = _prompt(row).conversation
        while len(talk) > 1 and not self.fits(_with(row, talk), room):
            talk = talk[2:]

        def shortened(length: int) -> Row:
            first = talk[0]._replace(text=talk[0].text[len(talk[0].text) - length :].strip())
            return _with(row, (first, *talk[1:]))

        low, high = 0, len(talk[0].text)
        while low < high:  # the most characters that fit
            middle = (low + high + 1) // 2
            if self.fits(shortened(middle), room):
                low = middle
            else:
                high = middle - 1
        found = shortened(low)
        return found if _prompt(found).conversation[0].text else None


def _most(text: str) -> int:
    """Return how many tokens a text can have."""
    return (len(text) if text.isascii() else len(text.encode())) + 2


def _prompt(row: Prompt | Example | Comparison) -> Prompt:
    return row if isinstance(row, Prompt) else row.prompt


def _replies(row: Prompt | Example | Comparison) -> list[str]:
    if isinstance(row, Prompt):
        return []
    return [row.response] if isinstance(row, Example) else [row.a, row.b]


def _with(row: Row, talk: Conversation) -> Row:
    """Return the row with another conversation; its id stays, for it is the same row."""
    prompt = replace(_prompt(row), conversation=talk)
    whole: Any = row
    found: Any = prompt if whole is _prompt(row) else replace(whole, prompt=prompt)
    kept: Row = found
    return kept
