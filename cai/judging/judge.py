"""The two kinds of judge: one that gives each reply a score, and one that is asked about two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from cai.algorithms.calibration import sigmoid
from cai.data.records import Comparison
from cai.dialogue import Conversation


class Judged(NamedTuple):
    """A reply to a conversation."""

    conversation: Conversation
    reply: str


@runtime_checkable
class ScoringJudge(Protocol):
    """Gives each reply a score; the difference of two is the log-odds that one is better."""

    def score(self, axis: str, replies: Sequence[Judged]) -> list[float]:
        """Score replies on ``harmlessness`` or ``helpfulness``."""
        ...


class AskingJudge(Protocol):
    """Is shown two replies at a time."""

    def choose(self, axis: str, comparisons: Sequence[Comparison]) -> list[float | None]:
        """Return the probability that each first reply is better; None if it can't be read."""
        ...


Judge = ScoringJudge | AskingJudge


def outcomes(judge: Judge, axis: str, comparisons: Sequence[Comparison]) -> list[float | None]:
    """Return the probability that the first reply of each comparison is the better one.

    sigma(score_a - score_b) where the judge scores (Bradley and Terry 1952).
    """
    if not isinstance(judge, ScoringJudge):
        return judge.choose(axis, comparisons)
    replies = [Judged(c.prompt.conversation, reply) for c in comparisons for reply in (c.a, c.b)]
    scores = judge.score(axis, replies)
    gaps = [a - b for a, b in zip(scores[::2], scores[1::2], strict=True)]
    return [float(p) for p in sigmoid(gaps)]
