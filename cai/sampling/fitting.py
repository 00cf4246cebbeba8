"""Rows that do not fit the model's context: found, counted and named before anything starts."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

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

SETS = ("red_team", "borderline", "helpful", "helpful_pairs", "harmless_pairs", "judgements")
WORD = "heron"
ANY_PROMPT: Conversation = (human(WORD),)
"""Stands for a prompt where only the words around it are counted."""


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

    def corpus(self, corpus: Corpus, room: int) -> Corpus:
        """Return a corpus of rows that fit.

        Args:
            corpus: As it was read.
            room: Tokens that must be left for what else is said to a prompt.

        Raises:
            UserError: If a row does not fit and ``data.too_long=error``, or a set is left empty.
        """
        sets = {name: getattr(corpus, name) for name in SETS}
        fitting: dict[str, Any] = {
            name: Splits(*(self.fit(rows, room, name) for rows in splits))
            for name, splits in sets.items()
        }
        return replace(corpus, **fitting)

    def fit(self, rows: Sequence[Row], room: int, name: str) -> list[Row]:
        """Do for one list of rows what ``corpus`` does for all."""
        faults = [row for row in rows if not self.fits(row, room)]
        if not faults:
            return list(rows)
        needs = f"model.context={self.chat.context} with the {room} tokens that follow"
        first = _prompt(faults[0]).id
        if self.too_long is TooLong.error:
            raise UserError(
                f"{self.stage}: {first} of {name} does not fit {needs}: raise model.context, or "
                "set data.too_long=skip"
            )
        cut = self.too_long is TooLong.cut_left
        bad = {id(row) for row in faults}
        treated = [(self._cut(row, room) if cut else None) if id(row) in bad else row
                   for row in rows]  # fmt: skip
        kept = [row for row in treated if row is not None]
        if not kept:
            raise UserError(
                f"{self.stage}: none of {len(rows)} {name} rows fits {needs}: raise model.context, "
                "or give shorter data"
            )
        lost = "shortened" if cut else "left out"
        log.warning(
            "%s: %d of %d %s rows do not fit %s, and were %s (data.too_long); first %s",
            self.stage, len(faults), len(rows), name, needs, lost, first,
        )  # fmt: skip
        return kept

    def fits(self, row: Prompt | Example | Comparison, room: int) -> bool:
        """Tell whether a row fits; only one that may be too long is encoded.

        A tokenizer makes at most one token of a byte, and one more of a text's beginning.
        """
        limit = self.chat.context - room
        talk = _prompt(row).conversation
        texts = [*(turn.text for turn in talk), *_replies(row)]
        around, more = self._overhead
        most = sum(len(text.encode()) + 2 for text in texts) + around + more * (len(talk) // 2)
        if most < limit:
            return True
        replies = sum(len(self.chat.response(reply)) for reply in _replies(row))
        return len(self.chat.unbounded_prompt(talk)) + replies < limit

    def room_of(self, questions: Iterable[Question]) -> int:
        """Count what the longest of some requests adds to the prompt that it is about."""
        longest = max(len(self.chat.unbounded_prompt(*question)) for question in questions)
        return longest - len(self.chat.unbounded_prompt(ANY_PROMPT))

    @cached_property
    def _overhead(self) -> tuple[int, int]:
        """Count what the format writes around one turn, and around each two more."""
        one = len(self.chat.unbounded_prompt(ANY_PROMPT))
        three = (*ANY_PROMPT, assistant(WORD), human(WORD))
        return one, len(self.chat.unbounded_prompt(three)) - one

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
