"""Supervised fine-tuning: the cross-entropy of the assistant's reply and of nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cai.config import SupervisedConfig
from cai.dialogue import Conversation, Role
from cai.lm.chat import ChatFormat
from cai.lm.load import LanguageModel
from cai.lm.packing import Tree, hidden_states
from cai.lm.score import response_scores, token_logprobs
from cai.training.base import SupervisedModule, sums_of
from cai.training.data import Batch, Order, TreeData


class Lesson(NamedTuple):
    """A prompt with what follows it, and which of those tokens are learnt."""

    tree: Tree
    learnt: list[bool]


def learn_turns(talk: Conversation, silent: int, chat: ChatFormat) -> list[Lesson]:
    """Learn several of the assistant's turns in one pass over the conversation.

    What the human says between them is read and not learnt. Where a chat template writes an earlier
    turn in another way once the conversation goes on, the turns stand in lessons of their own.

    Args:
        talk: Ends with the assistant.
        silent: How many of the assistant's turns, from the first, are read only.
        chat: Encodes.
    """
    made: list[Lesson] = []
    places = [place for place, turn in enumerate(talk) if turn.role is Role.ASSISTANT]
    for place in places[silent:]:
        prompt, response = chat.prompt(talk[:place]), chat.response(talk[place].text)
        last = made[-1] if made else None
        so_far = [*last.tree.prompt, *last.tree.responses[0]] if last else []
        if last is None or prompt[: len(so_far)] != so_far:
            made.append(Lesson(Tree(prompt, [response]), [True] * len(response)))
            continue
        between = prompt[len(so_far) :]
        tree = Tree(last.tree.prompt, [[*last.tree.responses[0], *between, *response]])
        made[-1] = Lesson(tree, [*last.learnt, *[False] * len(between), *[True] * len(response)])
    return made


class SFTModule(SupervisedModule):
    """Trains one adapter on what the assistant says.

    The loss of a step is the mean over all learnt tokens of its batch, whichever micro-batch they
    are in: -1/M sum_m log p(y_m | prompt, y_<m).
    """

    def __init__(
        self,
        model: LanguageModel,
        adapter: str,
        examples: Sequence[Tree | Lesson],
        settings: SupervisedConfig,
        order: Order,
    ) -> None:
        """Plan the steps.

        Args:
            model: Holds the adapter, which the caller has made the active one.
            adapter: Its name.
            examples: Prompts with one reply each, learnt whole or in part.
            settings: Optimizer, batch size and epochs.
            order: Of the records.
        """
        lessons = [e if isinstance(e, Lesson) else _whole(e) for e in examples]
        units = [sum(lesson.learnt) for lesson in lessons]
        data = TreeData([lesson.tree for lesson in lessons], units, settings, order)
        super().__init__({adapter: model.train_only(adapter)}, data, settings.optimizer)
        self._model = model
        self._learnt = [torch.tensor(lesson.learnt) for lesson in lessons]

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Add up -log p over the learnt tokens."""
        network = self._model.network
        hidden = hidden_states(network, batch.packed)
        logprobs = response_scores(network, hidden, batch.packed).logprobs
        learnt = torch.cat([self._learnt[record] for record in batch.records]).to(logprobs.device)
        loss = -logprobs[learnt].sum() / batch.total
        return loss, sums_of(loss.detach())

    def summary(self, totals: dict[str, float], norm: float, units: int) -> dict[str, float]:
        """Say how many tokens there were, too."""
        return {**super().summary(totals, norm, units), "tokens": units}


def _whole(tree: Tree) -> Lesson:
    return Lesson(tree, [True] * len(tree.responses[0]))


def mean_loss(model: LanguageModel, examples: Sequence[Tree], max_tokens: int) -> float:
    """Return the mean loss per reply token over examples, in nats."""
    scores = token_logprobs(model.network, examples, max_tokens)
    flat = torch.cat([part for parts in scores for part in parts])
    return -float(flat.mean())
