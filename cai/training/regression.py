"""Regression on ratings: a scalar at the end of the conversation, trained by least squares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from cai import parallel
from cai.config import OptimizerConfig
from cai.lm.heads import ScalarHead
from cai.lm.load import LanguageModel
from cai.lm.packing import Tree, hidden_states, pack
from cai.training.data import schedule_batches
from cai.training.preference import end_scores, score_responses
from cai.training.trainer import Record, ResumableModule, make_optimizer


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


class RegressionModule(ResumableModule):
    """Trains an adapter and its scalar head: loss = mean_n (predicted_n - rating_n)^2."""

    def __init__(
        self,
        model: LanguageModel,
        regressor: Regressor,
        rows: Sequence[RatedTree],
        settings: OptimizerConfig,
        plan: tuple[int, int],
        record: Record,
    ) -> None:
        """Plan the steps.

        Args:
            model: Holds the adapter, which the caller has made the active one.
            regressor: What is trained; its head is on the model's device.
            rows: Rated conversations.
            settings: Of the optimizer.
            plan: Tokens of a micro-batch, and the seed of the order.
            record: Takes the numbers of each step.
        """
        head = list(regressor.head.parameters())
        trained = {regressor.adapter: model.train_only(regressor.adapter), "head": head}
        super().__init__(trained, record)
        self._model, self._rows, self._settings = model, rows, settings
        self._head, self._mean = [regressor.head], regressor.mean
        self._steps = schedule_batches([row.tree.length for row in rows], settings, *plan)
        self.n_steps = len(self._steps)

    def training_step(self, step: int) -> None:
        """Make one update."""
        micros = self._steps[step]
        n_rows = sum(len(micro.records) for micro in micros)
        loss_sum = 0.0
        for micro in parallel.share(micros):
            rows = [self._rows[i] for i in micro.records]
            packed = pack([row.tree for row in rows]).to(self._model.device)
            hidden = hidden_states(self._model.network, packed)
            predicted = self._mean + end_scores(self._head[0], hidden, packed)
            truth = torch.tensor([row.rating for row in rows], device=predicted.device)
            loss = (predicted - truth).square().sum() / n_rows
            self.manual_backward(loss)
            loss_sum += float(loss.detach())
        norm = self.update(0, self._settings.max_grad_norm)
        [loss_sum] = parallel.total([loss_sum])
        self.report({"loss": loss_sum, "grad_norm": norm}, step)

    def configure_optimizers(self) -> Any:
        """Make AdamW and its schedule."""
        parameters = [p for part in self._trained.values() for p in part]
        optimizer, scheduler = make_optimizer(parameters, self._settings, self.n_steps)
        return [optimizer], [scheduler]
