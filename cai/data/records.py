"""The rows that flow from prompt to revision to label to reward."""

from __future__ import annotations

from dataclasses import dataclass

from cai.dialogue import Conversation, assistant, to_messages, to_text
from cai.results.labels import PreferenceRow


@dataclass(frozen=True)
class Prompt:
    """A conversation that waits for the assistant."""

    id: str
    kind: str
    conversation: Conversation


@dataclass(frozen=True)
class Example:
    """A prompt and a good reply."""

    prompt: Prompt
    response: str


@dataclass(frozen=True)
class Demonstration:
    """A flawed reply, what is wrong with it, a better one, and a comparison of the two.

    ``reasoning`` speaks of ``{first}`` and ``{second}``, to be filled in with option names. Where
    the reply is already fine, ``revision`` equals it and ``worse`` is an evasive or preachy one.
    The principles are those of its data set that it was written under, by id; None: under none.
    """

    prompt: Prompt
    response: str
    critique: str
    revision: str
    reasoning: str
    worse: str | None = None
    principle: str | None = None
    comparison_principle: str | None = None

    @property
    def options(self) -> tuple[str, str]:
        """The replies that ``reasoning`` calls first and second."""
        return (self.response, self.revision if self.worse is None else self.worse)

    @property
    def better(self) -> int:
        """Index of the better one among ``options``."""
        return 1 if self.worse is None else 0


@dataclass(frozen=True)
class Comparison:
    """Two replies to one prompt and how probable it is that ``a`` is the better one."""

    prompt: Prompt
    a: str
    b: str
    probability: float
    source: str

    def swap(self) -> Comparison:
        """Return the same comparison with the replies in the other order."""
        return Comparison(self.prompt, self.b, self.a, 1.0 - self.probability, self.source)

    def texts(self) -> tuple[str, str, str]:
        """Return the conversation and both replies as text."""
        return to_text(self.prompt.conversation), self.a, self.b

    def to_row(self) -> PreferenceRow:
        """Write the columns that preference trainers expect, and ours beside them."""
        best = self if self.probability >= 0.5 else self.swap()
        return PreferenceRow(
            id=self.prompt.id,
            kind=self.prompt.kind,
            source=self.source,
            prompt=self.prompt.conversation,
            chosen=to_messages((assistant(best.a),)),
            rejected=to_messages((assistant(best.b),)),
            probability=best.probability,
        )

    @staticmethod
    def from_row(row: PreferenceRow) -> Comparison:
        """Read what ``to_row`` writes."""
        return Comparison(
            prompt=Prompt(row.id, row.kind, row.prompt),
            a=row.chosen[0]["content"],
            b=row.rejected[0]["content"],
            probability=row.probability,
            source=row.source,
        )
