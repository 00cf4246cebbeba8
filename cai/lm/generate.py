"""Batched sampling in which a row depends on its prompt and its seed, not on its neighbours."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from cai.lm.backbone import (
    causal_lm,
    check_context,
    evaluating,
    n_layers,
    read_logits,
    run_backbone,
)
from cai.lm.cache import PrefixCache, SlotCache
from cai.lm.packing import (
    Tree,
    batches_of,
    hidden_states,
    pack,
    read_prefix,
    shared_beginning,
)

PREFILL_TOKENS = 2048
"""Padded prompt tokens in one forward pass: enough to keep a device busy."""
REFILL = 8
"""New rows start when at least one in so many places is free."""


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
        logprobs: Log-probability of each under the distribution that it was drawn from; at
            temperature 0, under the model's own.
        finished: Whether it ended by itself.
    """

    tokens: list[int]
    logprobs: list[float]
    finished: bool


@dataclass
class _Row:
    """A response under way; ``length`` counts the tokens that the cache holds of it."""

    index: int
    uniforms: list[float]
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    length: int = 0


@torch.no_grad()
def generate(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    sampling: Sampling,
    stop_ids: frozenset[int],
    *,
    batch_size: int,
) -> list[Completion]:
    """Sample one response per prompt.

    Rows are started in order of their length; a row that ends makes room for one that waits.
    Each row draws one uniform number per token from a generator of its own seed and inverts the
    distribution function, so its tokens do not change with the batch it is in (up to rounding).
    What all prompts begin with is computed once.

    Args:
        model: A causal LM; the adapter that is active answers, dropout is off.
        prompts: N lists of token ids.
        seeds: N seeds.
        sampling: Lengths and temperature.
        stop_ids: Tokens that end a response.
        batch_size: Rows at a time.

    Returns:
        N completions in the order of the prompts.

    Raises:
        UserError: If a prompt and its response do not fit the model's context.
    """
    if not prompts:
        return []
    longest = max(len(prompt) for prompt in prompts) + sampling.max_new_tokens
    check_context(model, longest, "a prompt with its reply")
    done: list[Completion | None] = [None] * len(prompts)
    slots = min(batch_size, len(prompts))
    waiting = deque(sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i)))
    with evaluating(model):
        decoder = _Decoder(model, sampling, stop_ids, SlotCache(n_layers(model), slots, longest))
        shared = shared_beginning(prompts)
        beginning = read_prefix(model, prompts[0][:shared]) if shared else None
        while waiting or decoder.rows:
            free = min(slots - len(decoder.rows), len(waiting))
            if free >= slots // REFILL or not decoder.rows:
                starting = [waiting.popleft() for _ in range(free)]
                rows = [_Row(i, _uniforms(seeds[i], sampling.max_new_tokens)) for i in starting]
                decoder.admit(rows, [Tree(prompts[i][shared:], ()) for i in starting], beginning)
            ended = decoder.step()
            for row in ended:
                finished = row.tokens[-1] in stop_ids
                done[row.index] = Completion(row.tokens, row.logprobs, finished)
    return [completion for completion in done if completion is not None]


@torch.no_grad()
def stream(
    model: nn.Module,
    prompt: Sequence[int],
    seed: int,
    sampling: Sampling,
    stop_ids: frozenset[int],
) -> Iterator[int]:
    """Yield one response token by token: the same tokens as ``generate`` gives for the same seed.

    Args:
        model: A causal LM; the adapter that is active answers until the last token is taken.
        prompt: Token ids.
        seed: Of the draws.
        sampling: Lengths and temperature.
        stop_ids: Tokens that end the response.

    Raises:
        UserError: If the prompt and its response do not fit the model's context.
    """
    longest = len(prompt) + sampling.max_new_tokens
    check_context(model, longest, "a prompt with its reply")
    with evaluating(model):
        decoder = _Decoder(model, sampling, stop_ids, SlotCache(n_layers(model), 1, longest))
        row = _Row(0, _uniforms(seed, sampling.max_new_tokens))
        decoder.admit([row], [Tree(prompt, ())], None)
        ended = False
        while not ended:
            ended = bool(decoder.step())
            yield row.tokens[-1]


def _uniforms(seed: int, n: int) -> list[float]:
    return [float(number) for number in np.random.Generator(np.random.Philox(seed)).random(n)]


class _Decoder:
    """Rows under way in the first slots of a cache, with the logits of their next tokens."""

    def __init__(
        self, model: nn.Module, sampling: Sampling, stop_ids: frozenset[int], cache: SlotCache
    ) -> None:
        self.rows: list[_Row] = []
        self._model, self._sampling, self._cache = model, sampling, cache
        self._device = causal_lm(model).device
        self._stop_ids = stop_ids
        self._stops = torch.tensor(sorted(stop_ids), dtype=torch.long, device=self._device)
        self._logits = torch.empty(0, device=self._device)

    def admit(self, rows: list[_Row], prompts: list[Tree], prefix: PrefixCache | None) -> None:
        """Read prompts that follow a shared prefix and give their rows the next free slots."""
        for group in batches_of(prompts, PREFILL_TOKENS):
            packed = pack([prompts[n] for n in group]).to(self._device)
            cache = PrefixCache(n_layers(self._model), prefix)
            hidden = hidden_states(self._model, packed, cache)
            self._cache.load(len(self.rows), cache)
            last = torch.tensor([len(prompts[n].prompt) - 1 for n in group], device=self._device)
            new = self._read(hidden[torch.arange(len(group), device=self._device), last])
            self._logits = torch.cat([self._logits, new]) if self.rows else new
            for n in group:
                rows[n].length = (prefix.length if prefix else 0) + len(prompts[n].prompt)
                self.rows.append(rows[n])

    def step(self) -> list[_Row]:
        """Sample a token for every row, take the rows that end, and compute the next logits."""
        early = [n for n, row in enumerate(self.rows) if self._is_early(row)]
        if early:
            self._logits[
                torch.tensor(early, device=self._device)[:, None], self._stops
            ] = -torch.inf
        drawn = [row.uniforms[len(row.tokens)] for row in self.rows]
        uniforms = torch.tensor(drawn, dtype=torch.float64).to(self._device)
        chosen, logprobs = _sample(self._logits, uniforms, self._sampling.temperature)
        for row, token, value in zip(self.rows, chosen.tolist(), logprobs.tolist(), strict=True):
            row.tokens.append(token)
            row.logprobs.append(value)
        ended = [self._take(n) for n in reversed(range(len(self.rows))) if self._has_ended(n)]
        if self.rows:
            self._advance()
        return ended

    def _is_early(self, row: _Row) -> bool:
        return len(row.tokens) < self._sampling.min_new_tokens

    def _has_ended(self, slot: int) -> bool:
        tokens = self.rows[slot].tokens
        return tokens[-1] in self._stop_ids or len(tokens) == self._sampling.max_new_tokens

    def _take(self, slot: int) -> _Row:
        """Remove a row; the last one moves into its place."""
        row, last = self.rows[slot], self.rows.pop()
        if last is not row:
            self._cache.move(len(self.rows), slot, last.length)
            self.rows[slot] = last
        return row

    def _advance(self) -> None:
        ids = torch.tensor([[row.tokens[-1]] for row in self.rows], device=self._device)
        sight = self._cache.expect([row.length for row in self.rows], self._device)
        positions = self._cache.ends[:, None]
        hidden = run_backbone(self._model, ids, positions, sight, self._cache)
        self._logits = self._read(hidden[:, -1])
        for row in self.rows:
            row.length += 1

    def _read(self, hidden: Tensor) -> Tensor:
        return read_logits(self._model, hidden)


def _sample(logits: Tensor, uniform: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Choose a token per row by inverting the distribution function at ``uniform``."""
    logp = (logits / (temperature or 1.0)).log_softmax(-1)
    if temperature == 0:
        chosen = logits.argmax(-1)
    else:
        cumulative = logp.exp().double().cumsum(-1)
        total = cumulative[:, -1:]
        # A threshold that rounded up to the total would fall behind the last possible token.
        below = torch.nextafter(total, torch.zeros_like(total))
        threshold = torch.minimum(uniform[:, None] * total, below)
        chosen = torch.searchsorted(cumulative, threshold, right=True).squeeze(-1)
    return chosen, logp.gather(-1, chosen.unsqueeze(-1)).squeeze(-1)
