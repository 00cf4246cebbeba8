"""Direct preference optimisation on soft labels: the baseline that needs no rollouts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cai import parallel
from cai.algorithms.preference import Pair, dpo_loss, implicit_rewards, pairwise_accuracy
from cai.config import DPOConfig
from cai.lm.load import LanguageModel
from cai.lm.packing import Packed, hidden_states, pack
from cai.lm.score import response_scores, token_logprobs
from cai.training.data import schedule_batches
from cai.training.preference import PairExample
from cai.training.trainer import Record, ResumableModule, make_optimizer


class DPOModule(ResumableModule):
    """Trains the policy's adapter on comparisons; the reference reads them once, beforehand."""

    def __init__(
        self,
        model: LanguageModel,
        roles: tuple[str, str | None],
        pairs: Sequence[PairExample],
        settings: DPOConfig,
        plan: tuple[int, int],
        record: Record,
    ) -> None:
        """Score the comparisons under the reference and plan the steps.

        Args:
            model: Holds both adapters.
            roles: Names of the policy's adapter and of the reference's; None is the bare base.
            pairs: Training comparisons; their weights play no part.
            settings: Loss and optimizer.
            plan: Tokens of a micro-batch, and the seed of the order.
            record: Takes the numbers of each step.
        """
        policy, reference = roles
        trees = [pair.tree for pair in pairs]
        with model.use(reference) as network:
            scored = parallel.spread(trees, lambda part: token_logprobs(network, part, plan[0]))
        super().__init__({policy: model.train_only(policy)}, record)
        self._model, self._policy, self._pairs, self._settings = model, policy, pairs, settings
        self._reference = torch.tensor([[float(r.sum()) for r in replies] for replies in scored])
        lengths = [tree.length for tree in trees]
        self._steps = schedule_batches(lengths, settings.optimizer, *plan)
        self.n_steps = len(self._steps)

    def training_step(self, step: int) -> None:
        """Make one update."""
        micros = self._steps[step]
        n_pairs = sum(len(micro.records) for micro in micros)
        totals = torch.zeros(4)
        for micro in parallel.share(micros):
            totals += self._backward(micro.records, len(micro.records) / n_pairs)
        norm = self.update(0, self._settings.optimizer.max_grad_norm)
        loss, margin, correct, counted = parallel.total(totals.tolist())
        values = {"loss": loss, "margin": margin, "grad_norm": norm}
        if counted:
            values["accuracy"] = correct / counted
        self.report(values, step)

    def _backward(self, records: Sequence[int], share: float) -> Tensor:
        """Add the gradients of a micro-batch: its loss, margin, right and decided pairs."""
        pairs = [self._pairs[i] for i in records]
        packed = pack([pair.tree for pair in pairs]).to(self._model.device)
        with self._model.use(self._policy) as network:
            hidden = hidden_states(network, packed)
            scores = reply_sums(response_scores(network, hidden, packed).logprobs, packed)
        policy = Pair(*scores.reshape(-1, 2).unbind(1))
        reference = Pair(*self._reference[list(records)].to(scores.device).unbind(1))
        labels = torch.tensor([pair.label for pair in pairs], device=scores.device)
        settings = self._settings
        loss = dpo_loss(policy, reference, labels, settings.beta, smoothing=settings.smoothing)
        self.manual_backward(loss * share)
        rewards = implicit_rewards(
            Pair(policy.a.detach(), policy.b.detach()), reference, settings.beta
        )
        accuracy = pairwise_accuracy(rewards, labels)
        margin = ((rewards.a - rewards.b) * torch.sign(labels - 0.5)).mean()
        return torch.tensor(
            [float(loss.detach()) * share, float(margin) * share, *map(float, accuracy)]
        )

    def configure_optimizers(self) -> Any:
        """Make AdamW and its schedule."""
        parameters = list(self._trained[self._policy])
        optimizer, scheduler = make_optimizer(parameters, self._settings.optimizer, self.n_steps)
        return [optimizer], [scheduler]


def reply_sums(logprobs: Tensor, packed: Packed) -> Tensor:
    """Add up token log-probabilities [M] to those of whole replies [R], in nats."""
    return logprobs.new_zeros(len(packed.last)).index_add(0, packed.response, logprobs)
