"""Labels from a model: multiple choice, chains of thought, contrast of likelihoods, and a probe."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from cai.algorithms.calibration import fit_temperature
from cai.config import (
    Average,
    ComparisonPrinciple,
    FeedbackConfig,
    LabelKind,
    Method,
    Principles,
)
from cai.constitution.principles import Constitution
from cai.data.records import Comparison, Demonstration
from cai.errors import UserError
from cai.lm.load import LanguageModel
from cai.results.labels import Opinion
from cai.seeds import draw

TIE = 1e-6
"""A probability this near to one half is a tie: swapped orders cancel up to rounding in fp32."""
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


class Answer(NamedTuple):
    """What came of one question.

    Attributes:
        probabilities: Of the reply shown first, one per chain. An answer that can't be read has
            no entry; it is never replaced by a default.
        tokens: Read and written for it, as if no other question shared its beginning.
    """

    probabilities: list[float]
    tokens: int


class Shown(NamedTuple):
    """What a labeller is shown beforehand.

    Attributes:
        demonstrations: Few-shots, and for contrast what it is calibrated on.
        judgements: Comparisons whose first reply is the better one, for a probe to learn from.
    """

    demonstrations: Sequence[Demonstration]
    judgements: Sequence[Comparison] = ()


class Answerer(Protocol):
    """Answers questions."""

    def ask(self, questions: Sequence[Asked]) -> list[Answer]:
        """Return one answer per question."""
        ...


def probability_of(opinion: Opinion, settings: FeedbackConfig) -> float | None:
    """Return the probability of A, both orders counting alike however many were read.

    None if an order that was asked can't be read: the other's position bias would stay in.
    """
    if not opinion.forward or (settings.swap and not opinion.backward):
        return None
    sides = (opinion.forward, opinion.backward)
    orders = [mean(side, settings.average) for side in sides if side]
    return mean([orders[0], *(1 - p for p in orders[1:])], settings.average)


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
        self.temperature = 1.0

    def calibrate(self, known: Sequence[Comparison]) -> None:
        """Fit the temperature that the log-odds of labels are divided by (Guo et al. 2017).

        A small model is right more often than it is sure, and labels near one half teach nothing.
        The targets are Platt's (1999), (n + 1) / (n + 2) for a right answer, so that a few
        comparisons, all answered rightly, do not make every label certain.

        Args:
            known: Comparisons with a known answer that nothing was trained on.
        """
        # Every other one with the better reply second, so that a bias does not pass for skill.
        shown = [c if n % 2 else c.swap() for n, c in enumerate(known)]
        verdicts = zip(self.judge(shown), shown, strict=True)
        pairs = [(v.probability, c.probability) for v, c in verdicts if v.probability is not None]
        if pairs:
            certainty = (len(pairs) + 1) / (len(pairs) + 2)
            targets = [certainty if truth > 0.5 else 1 - certainty for _, truth in pairs]
            self.temperature = fit_temperature([log_odds(p) for p, _ in pairs], targets)

    def judge(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        """Label comparisons."""
        questions = [
            Asked(comparison, principle, swapped)
            for comparison in comparisons
            for principle in self._drawn(comparison)
            for swapped in ((False, True) if self.settings.swap else (False,))
        ]
        per_comparison = len(questions) // max(1, len(comparisons))
        answered = iter(zip(questions, self.method.ask(questions), strict=True))
        return [
            self._verdict(list(itertools.islice(answered, per_comparison))) for _ in comparisons
        ]

    def _drawn(self, comparison: Comparison) -> Sequence[ComparisonPrinciple]:
        if self.settings.principles is Principles.ensemble:
            return self.principles
        return draw(self.principles, 1, self.seed, "label", comparison.prompt.id)

    def _verdict(self, answered: Sequence[tuple[Asked, Answer]]) -> Verdict:
        """Put together what was answered about one comparison."""
        opinions: dict[str, Opinion] = {}
        for question, answer in answered:
            name = question.principle.id
            opinion = opinions.setdefault(name, Opinion(name, [], []))
            side = opinion.backward if question.swapped else opinion.forward
            side += answer.probabilities
        found = [probability_of(opinion, self.settings) for opinion in opinions.values()]
        values = [p for p in found if p is not None]
        probability = mean(values, self.settings.average) if values else None
        if probability is not None:
            probability = cooled(probability, self.temperature)
        chains = self.settings.chains if self.settings.cot else 1
        read = sum(len(answer.probabilities) for _, answer in answered)
        return Verdict(
            label=None if probability is None else to_label(probability, self.settings),
            probability=probability,
            opinions=list(opinions.values()),
            unreadable=chains * len(answered) - read,
            questions=len(answered),
            tokens=sum(answer.tokens for _, answer in answered),
        )


def mean(probabilities: Sequence[float], average: Average) -> float:
    """Average probabilities as they are, or as log-odds."""
    if average is Average.probability:
        return sum(probabilities) / len(probabilities)
    odds = sum(map(log_odds, probabilities)) / len(probabilities)
    return 1 / (1 + math.exp(-odds))


def cooled(probability: float, temperature: float) -> float:
    """Divide the log-odds of a probability by a temperature; a tie stays one."""
    if temperature == 1:
        return probability
    if abs(probability - 0.5) < TIE:
        return 0.5
    return 1 / (1 + math.exp(-log_odds(probability) / temperature))


def log_odds(probability: float) -> float:
    """Return log(p / (1 - p)), finite at both ends."""
    kept = min(max(probability, _EDGE), 1 - _EDGE)
    return math.log(kept / (1 - kept))


def to_label(probability: float, settings: FeedbackConfig) -> float:
    """Make a label of a probability: hard (a tie stays 0.5), clamped, or as it is.

    Chains of thought are nearly certain, so their probabilities are clamped unless hard labels
    are asked for (Bai et al. 2022, section 4.1).
    """
    if settings.label is LabelKind.hard:
        return 0.5 if abs(probability - 0.5) < TIE else float(probability > 0.5)
    if settings.label is LabelKind.clamped or settings.cot:
        low, high = settings.clamp
        return min(max(probability, low), high)
    return probability


def make_judge(
    settings: FeedbackConfig,
    constitution: Constitution,
    shown: Shown,
    speaker: tuple[LanguageModel, str | None],
    seed: int,
) -> Judge:
    """Choose the method that the settings ask for.

    Args:
        settings: Of the feedback stage.
        constitution: Its comparison principles are asked about.
        shown: Examples.
        speaker: The local model and the adapter that answers, unless there is an endpoint.
        seed: Of draws and chains.

    Raises:
        UserError: If the settings do not go together.
    """
    from cai.labelling.chains import ChainOfThought
    from cai.labelling.choice import MultipleChoice
    from cai.labelling.contrast import Contrast
    from cai.labelling.probe import Probe
    from cai.labelling.remote import remote_answerer
    from cai.lm.embedded import cache_folder

    asks = settings.method is Method.choice
    if settings.cot and not asks:
        name = settings.method.value
        raise UserError(f"feedback.cot=true needs feedback.method=choice: {name} asks nothing")
    if settings.endpoint.used and not asks:
        raise UserError(
            f"feedback.method={settings.method.value} needs a local model: use "
            f"feedback.method=choice with feedback.endpoint.url={settings.endpoint.url}"
        )
    principles = constitution.comparison
    shots = (list(shown.demonstrations[: settings.few_shots]), principles, seed)
    method: Answerer
    if settings.endpoint.used:
        method = remote_answerer(settings, shots, cache_folder() / "endpoint")
    elif settings.cot:
        method = ChainOfThought(*speaker, settings, shots)
    elif settings.method is Method.contrast:
        method = Contrast(*speaker, principles, shown.demonstrations)
    elif settings.method is Method.probe:
        method = Probe(*speaker, principles, shown.judgements)
    else:
        method = MultipleChoice(*speaker, shots)
    return Judge(method, principles, settings, seed)
