"""Labels from a model: exact multiple choice, chains of thought, and likelihood contrast."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Protocol

from cai.config import (
    Average,
    ComparisonPrinciple,
    FeedbackConfig,
    LabelKind,
    Method,
    Principles,
)
from cai.constitution.principles import Constitution, draw
from cai.data.records import Comparison, Demonstration
from cai.errors import UserError
from cai.lm.load import LanguageModel

_EDGE = 1e-6
"""Probabilities are kept this far from 0 and 1 before their log-odds are averaged."""


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


class Answerer(Protocol):
    """Answers questions."""

    def probabilities(self, questions: Sequence[Asked]) -> list[list[float]]:
        """Return, per question, the probability of the reply shown first: one entry per chain.

        An answer that can't be read has no entry; it is never replaced by a default.
        """
        ...


@dataclass(frozen=True)
class Opinion:
    """What one principle says: probability of A as shown in each order."""

    principle: str
    forward: list[float]
    backward: list[float]

    def values(self) -> list[float]:
        """Return the probabilities of A, the order undone."""
        return [*self.forward, *(1 - p for p in self.backward)]


@dataclass(frozen=True)
class Verdict:
    """The label of one comparison and how it came about.

    Attributes:
        label: Probability that A is better; None if no answer could be read.
        probability: The same before it was clamped or hardened.
        opinions: Of each principle.
        unreadable: Answers that could not be read.
    """

    label: float | None
    probability: float | None
    opinions: list[Opinion] = field(default_factory=list)
    unreadable: int = 0

    def to_row(self) -> dict[str, Any]:
        """Write it as JSON types."""
        return asdict(self)


class Judge:
    """Asks a method in both orders under the drawn principles and averages what it says."""

    def __init__(
        self,
        method: Answerer,
        principles: Sequence[ComparisonPrinciple],
        settings: FeedbackConfig,
        seed: int,
    ) -> None:
        """Combine a way of asking with the principles to ask about."""
        self.method, self.principles = method, principles
        self.settings, self.seed = settings, seed

    def judge(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        """Label comparisons."""
        questions = [
            Asked(comparison, principle, swapped)
            for comparison in comparisons
            for principle in self._drawn(comparison)
            for swapped in ((False, True) if self.settings.swap else (False,))
        ]
        answers = dict(
            zip(range(len(questions)), self.method.probabilities(questions), strict=True)
        )
        by_comparison: dict[int, dict[str, Opinion]] = {id(c): {} for c in comparisons}
        unreadable = dict.fromkeys(by_comparison, 0)
        expected = self.settings.chains if self.settings.cot else 1
        for n, question in enumerate(questions):
            opinions = by_comparison[id(question.comparison)]
            opinion = opinions.setdefault(
                question.principle.id, Opinion(question.principle.id, [], [])
            )
            (opinion.backward if question.swapped else opinion.forward).extend(answers[n])
            unreadable[id(question.comparison)] += expected - len(answers[n])
        return [
            self._verdict(list(by_comparison[id(c)].values()), unreadable[id(c)])
            for c in comparisons
        ]

    def _drawn(self, comparison: Comparison) -> Sequence[ComparisonPrinciple]:
        if self.settings.principles is Principles.ensemble:
            return self.principles
        return draw(self.principles, 1, self.seed, "label", comparison.prompt.id)

    def _verdict(self, opinions: list[Opinion], unreadable: int) -> Verdict:
        values = [mean(o.values(), self.settings.average) for o in opinions if o.values()]
        if not values:
            return Verdict(None, None, opinions, unreadable)
        probability = mean(values, self.settings.average)
        return Verdict(to_label(probability, self.settings), probability, opinions, unreadable)


def mean(probabilities: Sequence[float], average: Average) -> float:
    """Average probabilities as they are, or as log-odds."""
    if average is Average.probability:
        return sum(probabilities) / len(probabilities)
    kept = [min(max(p, _EDGE), 1 - _EDGE) for p in probabilities]
    odds = sum(math.log(p / (1 - p)) for p in kept) / len(kept)
    return 1 / (1 + math.exp(-odds))


def to_label(probability: float, settings: FeedbackConfig) -> float:
    """Make a label of a probability: hard (a tie stays 0.5), clamped, or as it is.

    Chains of thought are nearly certain, so their probabilities are clamped unless hard labels
    are asked for (Bai et al. 2022, section 4.1).
    """
    if settings.label is LabelKind.hard:
        return 0.5 if probability == 0.5 else float(probability > 0.5)
    if settings.label is LabelKind.clamped or settings.cot:
        low, high = settings.clamp
        return min(max(probability, low), high)
    return probability


def make_judge(
    settings: FeedbackConfig,
    constitution: Constitution,
    demonstrations: Sequence[Demonstration],
    speaker: tuple[LanguageModel, str | None],
    seed: int,
) -> Judge:
    """Choose the method that the settings ask for.

    Args:
        settings: Of the feedback stage.
        constitution: Its comparison principles are asked about.
        demonstrations: Few-shots, and for contrast what it is calibrated on.
        speaker: The local model and the adapter that answers.
        seed: Of draws and chains.

    Raises:
        UserError: If the settings do not go together.
    """
    from cai.labelling.chains import ChainOfThought
    from cai.labelling.choice import MultipleChoice
    from cai.labelling.contrast import Contrast

    if settings.cot and settings.method is Method.contrast:
        raise UserError("feedback.cot=true needs feedback.method=choice: contrast asks nothing")
    principles = constitution.comparison
    shots = (list(demonstrations[: settings.few_shots]), principles, seed)
    method: Answerer
    if settings.cot:
        method = ChainOfThought(*speaker, settings, shots)
    elif settings.method is Method.contrast:
        method = Contrast(*speaker, principles, demonstrations)
    else:
        method = MultipleChoice(*speaker, shots)
    return Judge(method, principles, settings, seed)
