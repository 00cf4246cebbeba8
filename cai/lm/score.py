"""Log-probabilities of given tokens; logits are made only where one is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from cai.lm.backbone import read_logits
from cai.lm.cache import PrefixCache
from cai.lm.mapping import Progress, map_responses, map_tokens
from cai.lm.packing import Packed, Tree, hidden_states

CHUNK = 1024
"""Positions whose logits are held at a time: 1024 x 49152 in float32 are 200 MB."""


BARRED = -1e9
"""Logit of a token that can't be chosen: as good as -inf, without 0 * inf in the entropy."""


class Shaping(NamedTuple):
    """How a sampler's distribution differs from the model's own.

    Attributes:
        barred: Tokens that could not be sampled early in a response.
        before: First place in the response where they are allowed.
        temperature: Divides the logits.
    """

    barred: frozenset[int] = frozenset()
    before: int = 0
    temperature: float = 1.0


UNSHAPED = Shaping()


class TokenScores(NamedTuple):
    """Per response token, [M] each."""

    logprobs: Tensor
    entropies: Tensor | None


def response_scores(
    model: PreTrainedModel,
    hidden: Tensor,
    packed: Packed,
    *,
    shaping: Shaping = UNSHAPED,
    with_entropy: bool = False,
    entropy_gradient: bool = False,
) -> TokenScores:
    """Score the response tokens of a batch from its hidden states; differentiable.

    Args:
        model: Gives the language-model head.
        hidden: Hidden states, [B, S, H].
        packed: The batch.
        shaping: What the sampler did to the logits, so that both speak of one distribution.
        with_entropy: Also return the entropy of each distribution, in nats.
        entropy_gradient: Let gradients flow through it, for a bonus in the loss.
    """
    vectors = hidden[packed.row, packed.before]
    logprobs, entropies = [], []
    for start in range(0, len(vectors), CHUNK):
        logits = read_logits(model, vectors[start : start + CHUNK]) / shaping.temperature
        if shaping.barred and shaping.before:  # a GPU has to be waited for
            early = (packed.offset[start : start + CHUNK] < shaping.before).nonzero()
            logits[early, torch.tensor(sorted(shaping.barred), dtype=torch.long)] = BARRED
        normaliser = logits.logsumexp(-1)
        chosen = logits.gather(-1, packed.targets[start : start + CHUNK, None]).squeeze(-1)
        logprobs.append(chosen - normaliser)
        if with_entropy:
            with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
                probabilities = (logits - normaliser[:, None]).exp()
                entropies.append(normaliser - (probabilities * logits).sum(-1))
    return TokenScores(torch.cat(logprobs), torch.cat(entropies) if with_entropy else None)


@torch.no_grad()
def token_logprobs(
    model: PreTrainedModel,
    trees: Sequence[Tree],
    max_tokens: int,
    progress: Progress | None = None,
    *,
    shaping: Shaping = UNSHAPED,
    as_trained: bool = False,
) -> list[list[Tensor]]:
    """Return the log-probability of every response token, per tree and response.

    Args:
        model: A causal LM; the adapter that is active answers.
        trees: Prompts with their responses.
        max_tokens: Padded tokens in one forward pass.
        progress: Called with the number of trees that have just been scored.
        shaping: Of the distribution.
        as_trained: Read as a training step on these trees does.
    """

    def read(packed: Packed, before: PrefixCache | None) -> Tensor:
        hidden = hidden_states(model, packed, before)
        return response_scores(model, hidden, packed, shaping=shaping).logprobs

    return map_tokens(model, trees, max_tokens, read, progress, sharing=not as_trained)


@torch.no_grad()
def option_logprobs(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    options: Sequence[Sequence[int]],
    max_tokens: int,
) -> Tensor:
    """Return the log-probability of each whole option string after each prompt.

    What all prompts begin with is computed once, and so is each prompt for all of its options.

    Args:
        model: A causal LM; the adapter that is active answers.
        prompts: N lists of ids.
        options: K lists of ids.
        max_tokens: Padded tokens in one forward pass.

    Returns:
        Log-probabilities, [N, K], float32.
    """
    trees = [Tree(prompt, options) for prompt in prompts]

    def read(packed: Packed, before: PrefixCache | None) -> Tensor:
        hidden = hidden_states(model, packed, before)
        scores = response_scores(model, hidden, packed).logprobs
        return scores.new_zeros(len(packed.last)).index_add(0, packed.response, scores)

    rows = map_responses(model, trees, max_tokens, read)
    return torch.stack(rows) if rows else torch.empty(0, len(options))
