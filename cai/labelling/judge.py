"""A judge: puts questions in both orders, and makes one verdict of what is answered."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from cai.algorithms.calibration import fit_temperature
from cai.config import ComparisonPrinciple, FeedbackConfig, Principles
from cai.data.records import Comparison
from cai.labelling.answers import Answer, Answerer, Asked, Verdict
from cai.labelling.labels import cooled, log_odds, mean, probability_of, to_label
from cai.results.labels import Opinion
from cai.seeds import draw


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
        chains = self.settings.sampling.chains if self.settings.cot else 1
        read = sum(len(answer.probabilities) for _, answer in answered)
        return Verdict(
            label=None if probability is None else to_label(probability, self.settings),
            probability=probability,
            opinions=list(opinions.values()),
            unreadable=chains * len(answered) - read,
            questions=len(answered),
            tokens=sum(answer.tokens for _, answer in answered),
        )
