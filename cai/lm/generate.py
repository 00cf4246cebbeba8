"""Batched sampling in which a row depends on its prompt and its seed, not on its neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from cai.errors import UserError
from cai.lm.cache import PreallocatedCache, new_cache


@dataclass(frozen=True)
class Sampling:
    """How to sample.

    Attributes:
        max_new_tokens: Longest response, stop token included.
        min_new_tokens: The stop tokens are barred before so many tokens.
        temperature: Divides the logits; 0 takes the likeliest token.
    """

    max_new_tokens: int
    min_new_tokens: int = 0
    temperature: float = 1.0


class Completion(NamedTuple):
    """A sampled response.

    Attributes:
        tokens: Its ids; the last one is a stop token if ``finished``.
        logprobs: Log-probability of each at temperature 1, stop tokens barred where they were.
        finished: Whether it ended by itself.
    """

    tokens: list[int]
    logprobs: list[float]
    finished: bool


@dataclass
class _Batch:
    """Rows under way: where they belong, and what the next step needs."""

    index: list[int]
    cache: PreallocatedCache
    visible: Tensor  # [B, S] which cached positions are not padding
    position: Tensor  # [B] position of the next token
    logits: Tensor  # [B, V] of the next token


@torch.inference_mode()
def generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    sampling: Sampling,
    stop_ids: frozenset[int],
    *,
    batch_size: int,
    prefix: Sequence[int] = (),
    progress: Callable[[int], None] | None = None,
) -> list[Completion]:
    """Sample one response per prompt.

    Rows of similar length share a batch; a row that has ended leaves it. Each row draws one
    uniform number per token from a generator of its own seed and inverts the distribution
    function, so its tokens do not change with the batch it is in (up to rounding).

    Args:
        model: A causal LM; the adapter that is active answers.
        prompts: N lists of token ids.
        seeds: N seeds.
        sampling: Lengths and temperature.
        stop_ids: Tokens that end a response.
        batch_size: Rows at a time.
        prefix: Ids before every prompt, computed once.
        progress: Called with the number of rows that have just ended.

    Returns:
        N completions in the order of the prompts.

    Raises:
        UserError: If a prompt and its response do not fit the model's context.
    """
    _check_lengths(model, prompts, sampling, len(prefix))
    shared = _prefix_cache(model, prefix) if prefix else None
    done: list[Completion | None] = [None] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = _prefill(model, [prompts[i] for i in rows], rows, sampling, shared)
        noise = np.stack([_uniforms(seeds[i], sampling.max_new_tokens) for i in rows])
        for i, completion in _decode(model, batch, noise, sampling, stop_ids):
            done[i] = completion
            if progress is not None:
                progress(1)
    return [completion for completion in done if completion is not None]


def _check_lengths(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], sampling: Sampling, prefix: int
) -> None:
    context = int(model.config.max_position_embeddings)
    longest = max((len(prompt) for prompt in prompts), default=0) + prefix
    if longest + sampling.max_new_tokens > context:
        raise UserError(
            f"a prompt of {longest} tokens and a reply of {sampling.max_new_tokens} do not fit the "
            f"model's context of {context}: shorten the prompt or the reply"
        )
    if any(not prompt for prompt in prompts):
        raise ValueError("a prompt is empty")


def _uniforms(seed: int, n: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.random.Generator(np.random.Philox(seed)).random(n)


def _prefix_cache(model: PreTrainedModel, prefix: Sequence[int]) -> PreallocatedCache:
    cache = new_cache(model, 1, len(prefix))
    ids = torch.tensor([list(prefix)], device=model.device)
    model.base_model(input_ids=ids, past_key_values=cache, use_cache=True)
    return cache


def _prefill(
    model: PreTrainedModel,
    prompts: list[Sequence[int]],
    rows: list[int],
    sampling: Sampling,
    shared: PreallocatedCache | None,
) -> _Batch:
    """Run the prompts, padded on the left, and keep logits of their last positions only."""
    before = shared.get_seq_length() if shared is not None else 0
    width = max(len(prompt) for prompt in prompts)
    device = model.device
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    visible = torch.ones(len(prompts), before + width, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        pad = width - len(prompt)
        ids[row, pad:] = torch.tensor(prompt)
        visible[row, before : before + pad] = False
    ids, visible = ids.to(device), visible.to(device)
    position = visible.cumsum(-1)[:, before:] - 1
    cache = new_cache(model, len(prompts), before + width + sampling.max_new_tokens)
    if shared is not None:
        cache.fill(shared)
    hidden = model.base_model(
        input_ids=ids,
        attention_mask=_causal(visible, width),
        position_ids=position.clamp(min=0),
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    return _Batch(rows, cache, visible, position[:, -1] + 1, _logits(model, hidden[:, -1]))


def _causal(visible: Tensor, queries: int) -> Tensor:
    """Return the mask [B, 1, Q, S]; a padding query sees itself, so that its softmax is defined."""
    keys = visible.shape[1]
    square = torch.ones(queries, keys, dtype=torch.bool, device=visible.device)
    mask = square.tril(keys - queries) & visible[:, None, :]
    own = torch.eye(queries, dtype=torch.bool, device=visible.device)
    mask[:, :, keys - queries :] |= own
    return mask.unsqueeze(1)


def _logits(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    return model.get_output_embeddings()(hidden).float()  # type: ignore[no-any-return]


def _decode(
    model: PreTrainedModel,
    batch: _Batch,
    noise: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    sampling: Sampling,
    stop_ids: frozenset[int],
) -> list[tuple[int, Completion]]:
    """Sample until every row has ended; return rows with their places in the input."""
    device = model.device
    uniforms = torch.from_numpy(noise).to(device)
    stops = torch.tensor(sorted(stop_ids), device=device)
    tokens: dict[int, list[int]] = {i: [] for i in batch.index}
    logprobs: dict[int, list[float]] = {i: [] for i in batch.index}
    alive = torch.ones(len(batch.index), dtype=torch.bool, device=device)
    finished: set[int] = set()
    for step in range(sampling.max_new_tokens):
        if step < sampling.min_new_tokens:
            batch.logits[:, stops] = -torch.inf
        chosen, logp = _sample(batch.logits, uniforms[:, step], sampling.temperature)
        for row, (token, value) in enumerate(zip(chosen.tolist(), logp.tolist(), strict=True)):
            if alive[row]:
                tokens[batch.index[row]].append(token)
                logprobs[batch.index[row]].append(value)
        ended = alive & torch.isin(chosen, stops)
        finished |= {batch.index[row] for row in ended.nonzero().flatten().tolist()}
        alive &= ~ended
        if step == sampling.max_new_tokens - 1 or not alive.any():
            break
        if alive.sum() <= 0.875 * len(alive):
            kept = alive.nonzero().flatten()
            _keep(batch, kept)
            uniforms, chosen, alive = uniforms[kept], chosen[kept], alive[kept]
        _advance(model, batch, chosen)
    return [(i, Completion(tokens[i], logprobs[i], i in finished)) for i in tokens]


def _sample(logits: Tensor, uniform: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Choose a token per row by inverting the distribution function at ``uniform``."""
    logp = logits.log_softmax(-1)
    if temperature == 0:
        chosen = logits.argmax(-1)
    else:
        scaled = logp if temperature == 1 else (logits / temperature).log_softmax(-1)
        cumulative = scaled.exp().double().cumsum(-1)
        threshold = uniform.unsqueeze(-1) * cumulative[:, -1:]
        chosen = torch.searchsorted(cumulative, threshold, right=True).squeeze(-1)
        # A threshold that rounds up to the total must still fall on a token that is possible.
        chosen = chosen.clamp(max=logits.shape[-1] - 1)
    return chosen, logp.gather(-1, chosen.unsqueeze(-1)).squeeze(-1)


def _keep(batch: _Batch, rows: Tensor) -> None:
    batch.index = [batch.index[row] for row in rows.tolist()]
    batch.cache.keep(rows)
    batch.visible = batch.visible[rows]
    batch.position = batch.position[rows]


def _advance(model: PreTrainedModel, batch: _Batch, chosen: Tensor) -> None:
    """Feed the chosen tokens and compute the next logits."""
    seen = batch.visible.new_ones(len(chosen), 1)
    batch.visible = torch.cat([batch.visible, seen], dim=1)
    hidden = model.base_model(
        input_ids=chosen.unsqueeze(1),
        attention_mask=batch.visible[:, None, None, :],
        position_ids=batch.position.unsqueeze(1),
        past_key_values=batch.cache,
        use_cache=True,
    ).last_hidden_state
    batch.position = batch.position + 1
    batch.logits = _logits(model, hidden[:, -1])
