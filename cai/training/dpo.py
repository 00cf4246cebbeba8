"""Direct preference optimisation on soft labels: the baseline that needs no rollouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cai.algorithms.preference import Pair, dpo_loss, implicit_rewards, pairwise_accuracy
from cai.config import DPOConfig
from cai.lm.load import LanguageModel
from cai.lm.packing import Packed, hidden_states
from cai.lm.score import response_scores, token_logprobs
from cai.training.base import SupervisedModule
from cai.training.data import Batch, Order, TreeData
from cai.training.preference import PairExample


@dataclass(frozen=True)
class DPORoles:
    """Names of the adapter that is trained and of the one that it starts from.

    Attributes:
        policy: The caller has made it the active one.
        reference: None is the bare base.
    """

    policy: str
    reference: str | None


class DPOModule(SupervisedModule):
    """Trains the policy's adapter on comparisons; the reference reads them once, beforehand."""

    totals: ClassVar[tuple[str, ...]] = ("loss", "margin", "correct", "counted")

    def __init__(
        self,
        model: LanguageModel,
        roles: DPORoles,
        pairs: Sequence[PairExample],
        settings: DPOConfig,
        order: Order,
    ) -> None:
        """Score the comparisons under the reference and plan the steps.

        Args:
            model: Holds both adapters.
            roles: Their names.
            pairs: Training comparisons; their weights play no part.
            settings: Loss and optimizer.
            order: Of the records.
        """
        trees = [pair.tree for pair in pairs]
        with model.use(roles.reference) as network:
            scored = token_logprobs(network, trees, order.micro_tokens, as_trained=True)
        data = TreeData(trees, [1] * len(trees), settings, order)
        super().__init__({roles.policy: model.train_only(roles.policy)}, data, settings.optimizer)
        self._model, self._settings = model, settings
        self._reference = torch.tensor([[float(r.sum()) for r in replies] for replies in scored])
        self._labels = torch.tensor([pair.label for pair in pairs])

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Weigh the log-ratios of policy and reference by the labels."""
        network, settings = self._model.network, self._settings
        hidden = hidden_states(network, batch.packed)
        sums = reply_sums(response_scores(network, hidden, batch.packed).logprobs, batch.packed)
        policy = Pair(*sums.reshape(-1, 2).unbind(1))
        reference = Pair(*self._reference[batch.records].to(sums.device).unbind(1))
        labels = self._labels[batch.records].to(sums.device)
        loss = dpo_loss(policy, reference, labels, settings.beta, smoothing=settings.smoothing)
        rewards = implicit_rewards(Pair(*(x.detach() for x in policy)), reference, settings.beta)
        accuracy = pairwise_accuracy(rewards, labels)
        margin = ((rewards.a - rewards.b) * torch.sign(labels - 0.5)).mean()
        parts = [float(loss.detach()) * batch.share, float(margin) * batch.share]
        return loss * batch.share, torch.tensor([*parts, *map(float, accuracy)])

    def summary(self, totals: dict[str, float], norm: float, units: int) -> dict[str, float]:
        """Add the margin, and the accuracy on pairs that have a better side."""
        values = {"loss": totals["loss"], "margin": totals["margin"], "grad_norm": norm}
        if totals["counted"]:
            values["accuracy"] = totals["correct"] / totals["counted"]
        return values


def reply_sums(logprobs: Tensor, packed: Packed) -> Tensor:
    """Add up token log-probabilities [M] to those of whole replies [R], in nats."""
    return logprobs.new_zeros(len(packed.last)).index_add(0, packed.response, logprobs)
