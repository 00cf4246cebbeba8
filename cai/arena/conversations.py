"""A conversation with two systems, as it is kept on the disk."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cai.dialogue import Conversation, assistant, human
from cai.errors import UserError
from cai.jsonl import Document

SILENCE = "..."
"""What goes on in place of a reply without a word."""


@dataclass(frozen=True)
class Exchange:
    """What a person said, and two replies.

    Attributes:
        said: By the person.
        systems: Whose reply stands on the left and on the right.
        replies: What they said; None until they have.
        choice: ``left``, ``right`` or ``tie``; None until the person has chosen.
    """

    said: str
    systems: tuple[str, str]
    replies: tuple[str, str] | None = None
    choice: str | None = None

    @property
    def kept(self) -> str:
        """The reply that goes on: the chosen one, and of two equal ones that on the left."""
        assert self.replies is not None
        return self.replies[self.choice == "right"].strip() or SILENCE


@dataclass(frozen=True)
class Talk:
    """A conversation.

    Attributes:
        id: In the file of choices, too.
        annotator: Who talks.
        axis: What is asked about the replies.
        run: The run whose systems reply.
        pair: The two systems.
        exchanges: What has been said.
        ended: Whether the person has begun another.
    """

    id: str
    annotator: str
    axis: str
    run: str
    pair: tuple[str, str]
    exchanges: list[Exchange] = field(default_factory=list)
    ended: bool = False

    def heard(self) -> Conversation:
        """Return what the systems reply to next: replies that were not chosen are forgotten."""
        turns = []
        for exchange in self.exchanges:
            turns.append(human(exchange.said))
            if exchange.choice is not None:
                turns.append(assistant(exchange.kept))
        return tuple(turns)

    @property
    def last(self) -> Exchange | None:
        """The exchange that is not finished."""
        unfinished = self.exchanges and self.exchanges[-1].choice is None
        return self.exchanges[-1] if unfinished else None


def read_talk(path: Path) -> Talk:
    """Read a conversation.

    Raises:
        UserError: If it is none.
    """
    try:
        return Document[Talk](path, Talk).read()
    except (OSError, ValueError) as error:
        [first, *_] = str(error).splitlines() or [""]
        raise UserError(
            f"{path} is no conversation of the arena ({first}): put it somewhere else"
        ) from error
