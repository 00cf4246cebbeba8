"""Replies of the policy with everything that an update reads of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from cai.lm.cache import PrefixCache
from cai.lm.chat import ChatFormat, PromptIds
from cai.lm.heads import ScalarHead, ScalarModel
from cai.lm.load import LanguageModel
from cai.lm.mapping import map_tokens
from cai.lm.packing import Packed, Tree, hidden_states
from cai.lm.score import UNSHAPED, Shaping, response_scores
from cai.training.preference import score_responses


@dataclass(frozen=True)
class RewardModel:
    """One or several PMs, on the policy's base or networks of their own.

    Attributes:
        members: The PMs.
        mean: Held-out mean score, taken off.
        lower_bound: Standard deviations over the members taken off.
        speaker: Who writes the replies, if not in the PM's own tokens.
    """

    members: Sequence[ScalarModel]
    mean: float
    lower_bound: float
    speaker: ChatFormat | None = None

    def score(self, trees: Sequence[Tree], max_tokens: int) -> Tensor:
        """Score the only response of each tree: [B].

        A reply that ran into the token limit is read as if it ended there, because a PM knows
        scores at the end of a conversation only.
        """
        columns = []
        for model, adapter, head in self.members:
            speaker = self.speaker
            heard = [retold(tree, speaker, model.chat) for tree in trees] if speaker else trees
            whole = [ended(tree, model.chat) for tree in heard]
            with model.use(adapter):
                scores = score_responses(model, head, whole, max_tokens)
            columns.append(torch.tensor([score for [score] in scores]))
        scores_of = torch.stack(columns)
        spread = scores_of.std(0, correction=0)
        return scores_of.mean(0) - self.lower_bound * spread - self.mean


def ended(tree: Tree, chat: ChatFormat) -> Tree:
    """Return the tree with its reply ending in the stop token, as in all that is learnt from."""
    [reply] = tree.responses
    return Tree(tree.prompt, [chat.closed(reply)])


def retold(tree: Tree, speaker: ChatFormat, chat: ChatFormat) -> Tree:
    """Return a prompt and its reply as another model reads them."""
    prompt, [reply] = tree.prompt, tree.responses
    assert isinstance(prompt, PromptIds), "only a whole prompt can be put into other tokens"
    return Tree(chat.prompt(prompt.conversation), [chat.response(speaker.decode(reply))])


class Rollouts(NamedTuple):
    """A batch of replies; grids are [B, T], padded at the end.

    Attributes:
        trees: Prompt and response as the ids that were sampled, never decoded in between.
        ended: Whether a reply ended by itself, [B].
        repeats: Whether it says the same again and again, [B].
        scores: Of the reward model, [B].
        logp: Log-probabilities of the sampled tokens under the policy.
        ref_logp: The same under the reference.
        values: Of the critic, before each token.
        mask: Which entries are tokens.
        entropy: Mean entropy of the policy per token, in nats.
        sampler_gap: Largest difference between the sampler's log-probabilities and ``logp``.
    """

    trees: list[Tree]
    ended: Tensor
    repeats: Tensor
    scores: Tensor
    logp: Tensor
    ref_logp: Tensor
    values: Tensor
    mask: Tensor
    entropy: float
    sampler_gap: float


def merge(parts: Sequence[Rollouts]) -> Rollouts:
    """Join the shares of several processes, dealt out in turn, in the order of the prompts."""
    if len(parts) == 1:
        return parts[0]
    n = sum(len(part.trees) for part in parts)
    places = [(parts[i % len(parts)], i // len(parts)) for i in range(n)]

    def grid(name: str) -> Grid:
        return to_grid([getattr(part, name)[row][part.mask[row]] for part, row in places])

    return Rollouts(
        trees=[part.trees[row] for part, row in places],
        ended=torch.stack([part.ended[row] for part, row in places]),
        repeats=torch.stack([part.repeats[row] for part, row in places]),
        scores=torch.stack([part.scores[row] for part, row in places]),
        logp=grid("logp").values,
        ref_logp=grid("ref_logp").values,
        values=grid("values").values,
        mask=grid("logp").mask,
        entropy=sum(p.entropy * int(p.mask.sum()) for p in parts)
        / sum(int(p.mask.sum()) for p in parts),
        sampler_gap=max(part.sampler_gap for part in parts),
    )


class Grid(NamedTuple):
    """Numbers per response token and where there is one, [B, T] each."""

    values: Tensor
    mask: Tensor


@torch.no_grad()
def logprob_grid(
    model: LanguageModel,
    trees: Sequence[Tree],
    max_tokens: int,
    shaping: Shaping = UNSHAPED,
    entropies: list[float] | None = None,
    *,
    as_trained: bool = False,
) -> Grid:
    """Return log-probabilities under the active adapter.

    Args:
        model: Its active adapter answers.
        trees: Prompts with one response each.
        max_tokens: Padded tokens in one forward pass.
        shaping: Of the distribution.
        entropies: Takes the entropy of every token in nats, in any order; None spares the work.
        as_trained: Read as a training step on these trees does, so that the ratio of a first update
            is 1 in low precision, too.
    """
    wanted = entropies is not None

    def read(packed: Packed, before: PrefixCache | None) -> Tensor:
        hidden = hidden_states(model.network, packed, before)
        scores = response_scores(
            model.network, hidden, packed, shaping=shaping, with_entropy=wanted
        )
        columns = [scores.logprobs, *([scores.entropies] if scores.entropies is not None else [])]
        return torch.stack(columns, dim=-1)

    parts = map_tokens(model.network, trees, max_tokens, read, sharing=not as_trained)
    found = [part for [part] in parts]
    if entropies is not None:
        entropies.extend(x for part in found for x in part[:, 1].tolist())
    return to_grid([part[:, 0] for part in found])


@torch.no_grad()
def value_grid(
    model: LanguageModel, head: ScalarHead, trees: Sequence[Tree], max_tokens: int
) -> Grid:
    """Return the critic's values before each response token, read as a training step does."""

    def read(packed: Packed, before: PrefixCache | None) -> Tensor:
        hidden = hidden_states(model.network, packed, before)
        values: Tensor = head(hidden[packed.row, packed.before])
        return values

    parts = map_tokens(model.network, trees, max_tokens, read, sharing=False)
    return to_grid([part for [part] in parts])


def to_grid(parts: Sequence[Tensor]) -> Grid:
    """Stack rows of different lengths."""
    width = max(len(part) for part in parts)
    values = torch.zeros(len(parts), width)
    mask = torch.zeros(len(parts), width, dtype=torch.bool)
    for row, part in enumerate(parts):
        values[row, : len(part)] = part
        mask[row, : len(part)] = True
    return Grid(values, mask)
