"""Regression on ratings: a scalar at the end of the conversation, trained by least squares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from cai.config import SupervisedConfig
from cai.lm.heads import ScalarHead
from cai.lm.load import LanguageModel
from cai.lm.packing import Tree, hidden_states
from cai.training.base import SupervisedModule, sums_of
from cai.training.data import Batch, Order, TreeData
from cai.training.preference import end_scores, score_responses


class RatedTree(NamedTuple):
    """A conversation, its last reply being the only response, and its rating."""

    tree: Tree
    rating: float


@dataclass(frozen=True)
class Regressor:
    """Predicts a rating as ``mean + head(hidden state of the last token)``.

    Attributes:
        adapter: Its name.
        head: Starts at zero, so that training starts from the mean.
        mean: Of the ratings it was trained on.
    """

    adapter: str
    head: ScalarHead
    mean: float

    def predict(self, model: LanguageModel, trees: Sequence[Tree], max_tokens: int) -> list[float]:
        """Predict the rating of each tree's only response; not cut to the scale's ends."""
        with model.use(self.adapter):
            scores = score_responses(model, self.head, trees, max_tokens)
        return [self.mean + score for [score] in scores]


class RegressionModule(SupervisedModule):
    """Trains an adapter and its scalar head: loss = mean_n (predicted_n - rating_n)^2."""

    def __init__(
        self,
        model: LanguageModel,
        regressor: Regressor,
        rows: Sequence[RatedTree],
        settings: SupervisedConfig,
        order: Order,
    ) -> None:
        """Plan the steps.

        Args:
            model: Holds the adapter, which the caller has made the active one.
            regressor: What is trained; its head is on the model's device.
            rows: Rated conversations.
            settings: Optimizer, batch size and epochs.
            order: Of the records.
        """
        data = TreeData([row.tree for row in rows], [1] * len(rows), settings, order)
        head = list(regressor.head.parameters())
        trained = {regressor.adapter: model.train_only(regressor.adapter), "head": head}
        super().__init__(trained, data, settings.optimizer)
        self._model = model
        self._head, self._mean = [regressor.head], regressor.mean  # a list is not registered
        self._ratings = torch.tensor([row.rating for row in rows])

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Add up the squared errors."""
        hidden = hidden_states(self._model.network, batch.packed)
        predicted = self._mean + end_scores(self._head[0], hidden, batch.packed)
        truth = self._ratings[batch.records].to(predicted.device)
        loss = (predicted - truth).square().sum() / batch.total
        return loss, sums_of(loss.detach())
