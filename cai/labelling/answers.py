"""What is asked of a labeller and what comes of it: questions, answers, opinions, verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from cai.config import ComparisonPrinciple
from cai.data.records import Comparison, Demonstration
from cai.lm.load import LanguageModel
from cai.results.labels import Opinion


class Asked(NamedTuple):
    """One question: a comparison, in one order, under one principle."""

    comparison: Comparison
    principle: ComparisonPrinciple
    swapped: bool

    @property
    def replies(self) -> tuple[str, str]:
        """The replies in the order in which they are shown."""
        pair = (self.comparison.a, self.comparison.b)
        return pair[::-1] if self.swapped else pair


class Answer(NamedTuple):
    """What came of one question.

    Attributes:
        probabilities: Of the reply shown first, one per chain. An answer that can't be read has
            no entry; it is never replaced by a default.
        tokens: Read and written for it, as if no other question shared its beginning.
    """

    probabilities: list[float]
    tokens: int


def both_orders(forward: Answer, backward: Answer) -> float | None:
    """Average what was answered in both orders, as the probability of the first reply.

    None where one order can't be read: the other's position bias would stay in.
    """
    if not forward.probabilities or not backward.probabilities:
        return None
    first, second = (sum(a.probabilities) / len(a.probabilities) for a in (forward, backward))
    return (first + 1 - second) / 2


class Answerer(Protocol):
    """Answers questions."""

    def ask(self, questions: Sequence[Asked]) -> list[Answer]:
        """Return one answer per question."""
        ...


@dataclass(frozen=True)
class FeedbackModel:
    """A local model and the adapter with which it answers; None: without one."""

    model: LanguageModel
    adapter: str | None


@dataclass(frozen=True)
class FewShots:
    """What answered questions before a question are made of.

    Attributes:
        demonstrations: One for each.
        principles: Those that theirs are drawn from.
        seed: Of these draws, and of chains of thought.
    """

    demonstrations: Sequence[Demonstration]
    principles: Sequence[ComparisonPrinciple]
    seed: int


class Shown(NamedTuple):
    """What a labeller is shown beforehand.

    Attributes:
        demonstrations: Few-shots, and for contrast what it is calibrated on.
        judgements: Comparisons whose first reply is the better one, for a probe to learn from.
    """

    demonstrations: Sequence[Demonstration]
    judgements: Sequence[Comparison] = ()


@dataclass(frozen=True)
class Verdict:
    """The label of one comparison and how it came about.

    Attributes:
        label: Probability that A is better; None if no answer could be read.
        probability: The same before it was clamped or hardened.
        opinions: Of each principle.
        unreadable: Answers that could not be read.
        questions: How many were asked for it.
        tokens: Read and written for it.
    """

    label: float | None
    probability: float | None
    opinions: list[Opinion] = field(default_factory=list)
    unreadable: int = 0
    questions: int = 0
    tokens: int = 0
