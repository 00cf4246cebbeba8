"""Supervised fine-tuning: the cross-entropy of the assistant's reply and of nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from cai import parallel
from cai.config import OptimizerConfig
from cai.lm.load import LanguageModel
from cai.lm.packing import Tree, hidden_states, pack
from cai.lm.score import response_scores, token_logprobs
from cai.training.data import schedule_batches
from cai.training.trainer import Record, ResumableModule, make_optimizer


class SFTModule(ResumableModule):
    """Trains one adapter on prompts with replies.

    The loss of a step is the mean over all reply tokens of its batch, whichever micro-batch they
    are in: -1/M sum_m log p(y_m | prompt, y_<m).
    """

    def __init__(
        self,
        model: LanguageModel,
        adapter: str,
        examples: Sequence[Tree],
        settings: OptimizerConfig,
        plan: tuple[int, int],
        record: Record,
    ) -> None:
        """Plan the steps.

        Args:
            model: Holds the adapter, which the caller has made the active one.
            adapter: Its name.
            examples: Prompts with one reply each.
            settings: Learning rate, batch size and so on.
            plan: Tokens of a micro-batch, and the seed of the order.
            record: Takes the numbers of each step.
        """
        super().__init__({adapter: model.train_only(adapter)}, record)
        self._model, self._adapter = model, adapter
        self._examples, self._settings = examples, settings
        lengths = [tree.length for tree in examples]
        self._steps = schedule_batches(lengths, settings, *plan)
        self.n_steps = len(self._steps)

    def training_step(self, step: int) -> None:
        """Make one update."""
        batch = [[self._examples[i] for i in micro.records] for micro in self._steps[step]]
        n_tokens = sum(len(tree.responses[0]) for micro in batch for tree in micro)
        total = 0.0
        for trees in parallel.share(batch):
            packed = pack(trees).to(self._model.device)
            hidden = hidden_states(self._model.network, packed)
            scores = response_scores(self._model.network, hidden, packed)
            loss = -scores.logprobs.sum() / n_tokens
            self.manual_backward(loss)
            total += float(loss.detach())
        norm = self.update(0, self._settings.max_grad_norm)
        [total] = parallel.total([total])
        self.report({"loss": total, "grad_norm": norm, "tokens": n_tokens}, step)

    def configure_optimizers(self) -> Any:
        """Make AdamW and its schedule."""
        parameters = list(self._trained[self._adapter])
        optimizer, scheduler = make_optimizer(parameters, self._settings, self.n_steps)
        return [optimizer], [scheduler]


@torch.inference_mode()
def mean_loss(model: LanguageModel, examples: Sequence[Tree], max_tokens: int) -> float:
    """Return the mean loss per reply token over examples, in nats."""
    scores = token_logprobs(model.network, examples, max_tokens)
    flat = torch.cat([part for parts in scores for part in parts])
    return -float(flat.mean())
