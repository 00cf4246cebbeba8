"""Labels for models too small to be asked: a linear read-out of what they hold of each reply."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from cai.algorithms.calibration import Array
from cai.algorithms.probe import fit_direction
from cai.config import ComparisonPrinciple
from cai.constitution.prompts import under_rule
from cai.data.records import Comparison
from cai.dialogue import to_text
from cai.errors import UserError
from cai.labelling.answers import Answer, Asked, FeedbackModel
from cai.labelling.pointwise import PairScore, ask_once, reply_tree
from cai.lm.packing import Tree
from cai.lm.prepared import Made, adapter_fingerprint, digest_of, taken
from cai.lm.states import end_states
from cai.seeds import draw

SHRINKAGE = 1.0
"""The answers that it learns from are few and by few hands: their style should not be learnt."""
PREPARED = Path(__file__).with_name("readout")
"""The direction that ships: of the default model, assistant, constitution and data."""
FILE = "probe.safetensors"
RECIPE = 1
"""Of the direction: another number where other states are read, or it is fitted in another way."""


class Probe:
    """Reads each reply under the principle; log-odds are w (state of A - state of B).

    States are those of the upper half of the layers at the end of the reply. The direction w is
    fitted to comparisons whose answer is known (representation reading, Zou et al. 2023). A model
    too small to weigh two replies against each other may still represent what is wrong with one.
    """

    def __init__(
        self,
        feedback_model: FeedbackModel,
        principles: Sequence[ComparisonPrinciple],
        known: Sequence[Comparison],
        *,
        afresh: bool = False,
    ) -> None:
        """Take the direction that ships, if it is made for exactly this, or fit it.

        Args:
            feedback_model: Reads.
            principles: One is drawn for each known comparison.
            known: Comparisons whose first reply is the better one.
            afresh: Fit it in any case.

        Raises:
            UserError: If none is known.
        """
        if not known:
            raise UserError(
                "feedback.method=probe needs comparisons with a known answer: put some into "
                "judgements.jsonl or demonstrations.jsonl of data.folder"
            )
        self.model, self.adapter = feedback_model.model, feedback_model.adapter
        shown = questions(known, principles)
        self.made = self._made_for(shown)
        ready = None if afresh else taken(self.model, self.made, PREPARED, FILE)
        if ready is not None:
            self.direction: Array = ready["direction"].numpy()
        else:
            self.direction = fit_direction(self._differences(self._trees(shown)), SHRINKAGE)

    def _made_for(self, shown: Sequence[Asked]) -> Made:
        """Name everything that decides what the direction is, besides the base."""
        return {
            "recipe": RECIPE,
            "assistant": adapter_fingerprint(self.model, self.adapter),
            "prompt": self.model.chat.probe,
            "comparisons": digest_of(map(read_of, shown)),
            "shrinkage": SHRINKAGE,
        }

    def ask(self, questions: Sequence[Asked]) -> list[Answer]:
        """Return the probability of the reply shown first."""
        return ask_once(questions, self._read)

    def _read(self, questions: Sequence[Asked]) -> list[PairScore]:
        trees = self._trees(questions)
        log_odds = (self._differences(trees) @ self.direction).tolist()
        return [PairScore(x, tree.length) for x, tree in zip(log_odds, trees, strict=True)]

    def _trees(self, questions: Sequence[Asked]) -> list[Tree]:
        return [reply_tree(self.model.chat, q, q.principle.text) for q in questions]

    def _differences(self, trees: Sequence[Tree]) -> Array:
        """Return the state of the first reply less that of the second, [N, D]."""
        with self.model.sampling(self.adapter) as network:
            states = end_states(network, trees, self.model.read_tokens)
        return torch.stack([first - second for first, second in states]).double().numpy()


def questions(
    known: Sequence[Comparison], principles: Sequence[ComparisonPrinciple]
) -> list[Asked]:
    """Put each known comparison under one principle."""
    return [
        Asked(comparison, rule, swapped=False)
        for comparison in known
        for rule in draw(principles, 1, "probe", comparison.prompt.id)
    ]


def read_of(asked: Asked) -> list[str]:
    """Return what is read of a question: the conversation under the rule, and both replies."""
    talk = under_rule(asked.comparison.prompt.conversation, asked.principle.text)
    return [to_text(talk), *asked.replies]
