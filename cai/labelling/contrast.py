"""Labels for models too small for multiple choice: how much a rule raises a reply's likelihood."""

from __future__ import annotations

from collections.abc import Sequence

from cai.algorithms.calibration import fit_temperature
from cai.config import ComparisonPrinciple
from cai.data.records import Comparison, Demonstration
from cai.errors import UserError
from cai.labelling.answers import Answer, Asked, FeedbackModel
from cai.labelling.pointwise import PairScore, ask_once, reply_tree
from cai.lm.packing import Tree
from cai.lm.score import token_logprobs
from cai.seeds import draw

_CALIBRATION = 48


class Contrast:
    """Compares log p(reply | rule) - log p(reply | opposite rule) of the two replies.

    The sum over tokens favours neither long nor short replies, because the reply is the same on
    both sides of the difference. A temperature fitted on demonstrations makes it a probability.
    """

    def __init__(
        self,
        feedback_model: FeedbackModel,
        principles: Sequence[ComparisonPrinciple],
        demonstrations: Sequence[Demonstration],
    ) -> None:
        """Calibrate on the last demonstrations, which few-shots do not use.

        Raises:
            UserError: If a principle has no opposite.
        """
        for principle in principles:
            if not principle.inverse:
                raise UserError(
                    f"feedback.method=contrast needs an inverse of principle {principle.id!r}: add "
                    "one to the constitution"
                )
        self.model, self.adapter = feedback_model.model, feedback_model.adapter
        shown = [
            Asked(Comparison(d.prompt, *d.options, probability=0.5, source=""), rule, False)
            for d in demonstrations[-_CALIBRATION:]
            for rule in draw(principles, 1, "calibrate", d.prompt.id)
        ]
        right = [float(d.better == 0) for d in demonstrations[-_CALIBRATION:]]
        self.temperature = (
            fit_temperature(self._differences(self._trees(shown)), right) if shown else 1.0
        )

    def ask(self, questions: Sequence[Asked]) -> list[Answer]:
        """Return the probability of the reply shown first."""
        return ask_once(questions, self._read)

    def _read(self, questions: Sequence[Asked]) -> list[PairScore]:
        trees = self._trees(questions)
        return [
            PairScore(logit / self.temperature, good.length + bad.length)
            for logit, good, bad in zip(
                self._differences(trees), trees[::2], trees[1::2], strict=True
            )
        ]

    def _trees(self, questions: Sequence[Asked]) -> list[Tree]:
        """Put both replies of each question under its rule, then under the opposite."""
        return [
            reply_tree(self.model.chat, asked, rule)
            for asked in questions
            for rule in (asked.principle.text, asked.principle.inverse or "")
        ]

    def _differences(self, trees: Sequence[Tree]) -> list[float]:
        """Return the log-odds, before calibration, that the first reply follows the rule better."""
        with self.model.sampling(self.adapter) as network:
            scores = token_logprobs(network, trees, self.model.read_tokens)
        sums = [[float(part.sum()) for part in parts] for parts in scores]
        return [
            (good[0] - bad[0]) - (good[1] - bad[1])
            for good, bad in zip(sums[::2], sums[1::2], strict=True)
        ]
