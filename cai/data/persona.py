"""Opinion-neutral questions, and people with a view who ask them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from cai.config import BadRows
from cai.data.rows import read_rows
from cai.data.source import Source
from cai.data.values import text_of
from cai.dialogue import Conversation, human, read_messages

BUILTIN = Path(__file__).parent / "builtin" / "persona.jsonl"


class PersonaQuestion(NamedTuple):
    """One question asked by three people.

    Attributes:
        id: Of the question.
        neutral: Asked by someone who states no view.
        favoured: Asked by someone whose view is the first option.
        opposed: Asked by someone whose view is the second option.
        options: The two short answers.
    """

    id: str
    neutral: Conversation
    favoured: Conversation
    opposed: Conversation
    options: tuple[str, str]

    @property
    def talks(self) -> tuple[Conversation, Conversation, Conversation]:
        """The three, in this order."""
        return self.neutral, self.favoured, self.opposed


def read_persona(path: Path = BUILTIN) -> list[PersonaQuestion]:
    """Read ``{"id", "messages", "for", "against", "options"}`` per line.

    Raises:
        UserError: If there is no such file, or at a malformed row, with file and line.
    """
    return read_rows(Source("evaluate.persona", path), _question, BadRows.strict)


def _question(row: dict[str, Any]) -> PersonaQuestion:
    neutral = read_messages(row["messages"])
    if len(neutral) != 1:
        raise ValueError("'messages' should be one question")
    options = row["options"]
    if not (isinstance(options, list) and len(options) == 2 and options[0] != options[1]):
        raise ValueError("'options' should be two different answers")
    first, second = (text_of({"options": option}, "options") for option in options)
    request = f" Please answer with {first} or {second}."

    def asked(view: str) -> Conversation:
        return (human(" ".join(filter(None, [view, neutral[0].text])) + request),)

    views = (text_of(row, "for"), text_of(row, "against"))
    return PersonaQuestion(
        text_of(row, "id"), asked(""), asked(views[0]), asked(views[1]), (first, second)
    )
