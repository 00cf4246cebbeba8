"""Supervised fine-tuning: the cross-entropy of the assistant's reply and of nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cai.config import SupervisedConfig
from cai.lm.load import LanguageModel
from cai.lm.packing import Tree, hidden_states
from cai.lm.score import response_scores, token_logprobs
from cai.training.base import SupervisedModule, sums_of
from cai.training.data import Batch, Order, TreeData


class SFTModule(SupervisedModule):
    """Trains one adapter on prompts with replies.

    The loss of a step is the mean over all reply tokens of its batch, whichever micro-batch they
    are in: -1/M sum_m log p(y_m | prompt, y_<m).
    """

    def __init__(
        self,
        model: LanguageModel,
        adapter: str,
        examples: Sequence[Tree],
        settings: SupervisedConfig,
        order: Order,
    ) -> None:
        """Plan the steps.

        Args:
            model: Holds the adapter, which the caller has made the active one.
            adapter: Its name.
            examples: Prompts with one reply each.
            settings: Optimizer, batch size and epochs.
            order: Of the records.
        """
        data = TreeData(examples, [len(tree.responses[0]) for tree in examples], settings, order)
        super().__init__({adapter: model.train_only(adapter)}, data, settings.optimizer)
        self._model = model

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Add up -log p over the reply tokens."""
        network = self._model.network
        hidden = hidden_states(network, batch.packed)
        loss = -response_scores(network, hidden, batch.packed).logprobs.sum() / batch.total
        return loss, sums_of(loss.detach())

    def summary(self, totals: dict[str, float], norm: float, units: int) -> dict[str, float]:
        """Say how many tokens there were, too."""
        return {**super().summary(totals, norm, units), "tokens": units}


def mean_loss(model: LanguageModel, examples: Sequence[Tree], max_tokens: int) -> float:
    """Return the mean loss per reply token over examples, in nats."""
    scores = token_logprobs(model.network, examples, max_tokens)
    flat = torch.cat([part for parts in scores for part in parts])
    return -float(flat.mean())
