"""Preference models: a scalar at the end of the conversation, trained on probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cai import parallel
from cai.algorithms.preference import Pair, pairwise_accuracy, pairwise_loss
from cai.config import PMConfig
from cai.data.records import Comparison
from cai.lm.heads import ScalarHead, ScalarModel
from cai.lm.load import LanguageModel
from cai.lm.mapping import Progress, map_responses
from cai.lm.packing import Packed, Tree, hidden_states, pack
from cai.training.data import schedule_batches
from cai.training.trainer import Record, ResumableModule, make_optimizer


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


class PreferenceModule(ResumableModule):
    """Trains an adapter and its scalar head; both replies of a pair share one row."""

    def __init__(
        self,
        scorer: ScalarModel,
        pairs: Sequence[PairExample],
        settings: PMConfig,
        plan: tuple[int, int],
        record: Record,
    ) -> None:
        """Plan the steps.

        Args:
            scorer: Its adapter, if it is one, is the active one; its head is on the device.
            pairs: Training comparisons.
            settings: Loss and optimizer.
            plan: Tokens of a micro-batch, and the seed of the order.
            record: Takes the numbers of each step.
        """
        super().__init__(scorer.train(), record)
        self._scorer, self._pairs, self._settings = scorer, pairs, settings
        lengths = [pair.tree.length for pair in pairs]
        self._steps = schedule_batches(lengths, settings.optimizer, *plan)
        self.n_steps = len(self._steps)

    def training_step(self, step: int) -> None:
        """Make one update."""
        (model, _, head), micros = self._scorer, self._steps[step]
        n_pairs = sum(len(micro.records) for micro in micros)
        loss_sum = correct = counted = 0.0
        for micro in parallel.share(micros):
            pairs = [self._pairs[i] for i in micro.records]
            packed = pack([pair.tree for pair in pairs]).to(model.device)
            ends = end_scores(head, hidden_states(model.network, packed), packed)
            scores = Pair(*ends.reshape(-1, 2).unbind(1))
            labels = torch.tensor([pair.label for pair in pairs], device=scores.a.device)
            loss = pairwise_loss(
                scores,
                labels,
                smoothing=self._settings.label_smoothing,
                weights=torch.tensor([pair.weight for pair in pairs], device=scores.a.device),
                centring=self._settings.centring,
            ) * (len(pairs) / n_pairs)
            self.manual_backward(loss)
            loss_sum += float(loss.detach())
            accuracy = pairwise_accuracy(Pair(scores.a.detach(), scores.b.detach()), labels)
            correct, counted = correct + accuracy.correct, counted + accuracy.counted
        norm = self.update(0, self._settings.optimizer.max_grad_norm)
        loss_sum, correct, counted = parallel.total([loss_sum, correct, counted])
        values = {"loss": loss_sum, "grad_norm": norm}
        if counted:
            values["accuracy"] = correct / counted
        self.report(values, step)

    def configure_optimizers(self) -> Any:
        """Make AdamW and its schedule."""
        parameters = [p for part in self._trained.values() for p in part]
        optimizer, scheduler = make_optimizer(parameters, self._settings.optimizer, self.n_steps)
        return [optimizer], [scheduler]


@torch.inference_mode()
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
    found = map_responses(
        model.network,
        trees,
        max_tokens,
        lambda packed: end_scores(head, hidden_states(model.network, packed), packed),
        progress,
    )
    return [scores.tolist() for scores in found]
