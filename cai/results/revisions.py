"""Rows of the supervised phase: the gate, critiques and revisions, helpful answers."""

from __future__ import annotations

from dataclasses import dataclass

from cai.results.common import Messages


@dataclass(frozen=True)
class Gate:
    """How often the helpful assistant refuses held-out red-team prompts."""

    refusal: float
    n: int
    words: str


@dataclass(frozen=True)
class GateReply:
    """A reply that the gate looked at."""

    prompt_id: str
    messages: Messages
    response: str
    style: str


@dataclass(frozen=True)
class RevisionRound:
    """A critique and the revision that followed it.

    Attributes:
        round: Counts from 1.
        principle: Its id.
        shots: Principle of each few-shot by the shot's id.
        critique_seed: None without critique.
        critique: None without critique.
        revision_seed: Of the sample.
        revision: Of the reply before it.
        finished: Whether it ended by itself.
        faults: Why it is not trained on; empty if it is.
    """

    round: int
    principle: str
    shots: dict[str, str]
    critique_seed: int | None
    critique: str | None
    revision_seed: int
    revision: str
    finished: bool
    faults: list[str]


@dataclass(frozen=True)
class Revision:
    """A prompt, the first reply to it, and its revisions.

    ``model`` is the fingerprint of the assistant that wrote all of it.
    """

    prompt_id: str
    kind: str
    messages: Messages
    seed: int
    model: str
    response: str
    finished: bool
    rounds: list[RevisionRound]

    def after(self, number: int) -> str:
        """Return the reply after so many revisions."""
        return self.rounds[number - 1].revision if number else self.response


@dataclass(frozen=True)
class Yield:
    """How many rows of a round have a fault, or are ``usable``."""

    round: int
    fault: str
    rows: int
    of: int


@dataclass(frozen=True)
class HelpfulAnswer:
    """An answer of the helpful assistant to a helpful prompt."""

    prompt_id: str
    sample: int
    response: str
    finished: bool


@dataclass(frozen=True)
class SFTMetrics:
    """What SL-CAI was trained on, and its loss on held-out helpful answers in nats a token."""

    revisions: int
    helpful: int
    held_out_helpful_loss: float
