"""Preference models: a scalar at the end of the conversation, trained on probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from cai.algorithms.preference import Pair, pairwise_accuracy, pairwise_loss
from cai.config import JudgeTrainingConfig, PMConfig
from cai.data.records import Comparison
from cai.lm.cache import PrefixCache
from cai.lm.heads import ScalarHead, ScalarModel
from cai.lm.load import LanguageModel
from cai.lm.mapping import Progress, map_responses
from cai.lm.packing import Packed, Tree, hidden_states
from cai.training.base import SupervisedModule, sums_of
from cai.training.data import Batch, Order, TreeData


class PairExample(NamedTuple):
    """A comparison as the PM reads it.

    Attributes:
        tree: The prompt and both replies, each ending with the stop token.
        label: Probability that the first reply is the better one.
        weight: Of the pair in the loss.
        source: Which kind of label it is.
    """

    tree: Tree
    label: float
    weight: float
    source: str


def pair_tree(model: LanguageModel, comparison: Comparison) -> Tree:
    """Encode a comparison's prompt and both replies."""
    replies = [model.chat.response(reply) for reply in (comparison.a, comparison.b)]
    return Tree(model.chat.prompt(comparison.prompt.conversation), replies)


def end_scores(head: ScalarHead, hidden: Tensor, packed: Packed) -> Tensor:
    """Read the score of every response at its last token: [R]."""
    return head(hidden[packed.last[:, 0], packed.last[:, 1]])  # type: ignore[no-any-return]


class PreferenceModule(SupervisedModule):
    """Trains an adapter and its scalar head; both replies of a pair share one row."""

    totals: ClassVar[tuple[str, ...]] = ("loss", "correct", "counted")

    def __init__(
        self,
        scorer: ScalarModel,
        pairs: Sequence[PairExample],
        settings: PMConfig | JudgeTrainingConfig,
        order: Order,
    ) -> None:
        """Plan the steps.

        Args:
            scorer: Its adapter, if it is one, is the active one; its head is on the device.
            pairs: Training comparisons.
            settings: Loss and optimizer.
            order: Of the records.
        """
        trees = [pair.tree for pair in pairs]
        data = TreeData(trees, [1] * len(trees), settings, order)
        super().__init__(scorer.train(), data, settings.optimizer)
        self._scorer, self._settings = scorer, settings
        self._labels = torch.tensor([pair.label for pair in pairs])
        self._weights = torch.tensor([pair.weight for pair in pairs])

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Compare the scores of both replies with the label."""
        model, _, head = self._scorer
        ends = end_scores(head, hidden_states(model.network, batch.packed), batch.packed)
        scores = Pair(*ends.reshape(-1, 2).unbind(1))
        labels = self._labels[batch.records].to(ends.device)
        loss = batch.share * pairwise_loss(
            scores,
            labels,
            smoothing=self._settings.label_smoothing,
            weights=self._weights[batch.records].to(ends.device),
            centring=self._settings.centring,
        )
        accuracy = pairwise_accuracy(Pair(scores.a.detach(), scores.b.detach()), labels)
        return loss, sums_of(loss.detach(), accuracy.correct, accuracy.counted)

    def summary(self, totals: dict[str, float], norm: float, units: int) -> dict[str, float]:
        """Add the accuracy on pairs that have a better side."""
        values = super().summary(totals, norm, units)
        if totals["counted"]:
            values["accuracy"] = totals["correct"] / totals["counted"]
        return values


@torch.no_grad()
def score_responses(
    model: LanguageModel,
    head: ScalarHead,
    trees: Sequence[Tree],
    max_tokens: int,
    progress: Progress | None = None,
) -> list[list[float]]:
    """Score every response of every tree with the active adapter.

    Args:
        model: Its active adapter is the PM's.
        head: The PM's head.
        trees: Prompts with replies, each ending with the stop token if it ended by itself.
        max_tokens: Padded tokens in one forward pass.
        progress: Called with the number of trees that have just been scored.
    """

    def read(packed: Packed, before: PrefixCache | None) -> Tensor:
        return end_scores(head, hidden_states(model.network, packed, before), packed)

    found = map_responses(model.network, trees, max_tokens, read, progress)
    return [scores.tolist() for scores in found]
