"""Two key-value caches: one that starts from a shared prefix, one with slots for decoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from cai.lm.backbone import Sight


class PrefixLayer(CacheLayerMixin):
    """Keys and values of one layer, behind those of a prefix that all rows share.

    The prefix is held once, [1, heads, P, D]; rows get their copy of it only while their layer is
    at work. One call of the model fills the layer.
    """

    is_sliding = False
    keys: Tensor
    values: Tensor

    def __init__(self, prefix: PrefixLayer | None) -> None:
        """Start from a prefix, or from nothing."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.prefix = prefix
        self.length: int = prefix.length if prefix is not None else 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Take what the first call brings."""
        self.keys, self.values = key_states, value_states
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Keep the rows' own keys and values; return them with the prefix before them."""
        self.lazy_initialization(key_states, value_states)
        self.length += key_states.shape[2]
        if self.prefix is None:
            return key_states, value_states
        rows = len(key_states)
        before = self.prefix.keys.expand(rows, -1, -1, -1)
        before_values = self.prefix.values.expand(rows, -1, -1, -1)
        keys = torch.cat([before, key_states], dim=2)
        return keys, torch.cat([before_values, value_states], dim=2)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return length and offset of the keys that a query sees."""
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        """Return how many tokens each row holds."""
        return self.length

    def get_max_length(self) -> int:
        """Return -1: there is no limit."""
        return -1


class PrefixCache(Cache):
    """One ``PrefixLayer`` for each layer of a model."""

    def __init__(self, n_layers: int, prefix: PrefixCache | None = None) -> None:
        """Start all rows from a prefix, or from nothing."""
        before: Sequence[PrefixLayer | None]
        before = prefix.parts if prefix is not None else [None] * n_layers
        self.parts: list[PrefixLayer] = [PrefixLayer(part) for part in before]
        super().__init__(layers=[*self.parts])

    @property
    def length(self) -> int:
        """How many tokens each row holds."""
        return self.parts[0].length


class SlotLayer(CacheLayerMixin):
    """Keys and values of one layer in a buffer that is allocated once; each row has its length."""

    is_sliding = False
    keys: Tensor
    values: Tensor

    def __init__(self, owner: SlotCache) -> None:
        """Read lengths from the cache that all layers belong to."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.owner = owner

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the buffers; what was never written must be finite, though it is masked."""
        shape = (self.owner.rows, key_states.shape[1], self.owner.capacity)
        self.keys = key_states.new_zeros(*shape, key_states.shape[3])
        self.values = value_states.new_zeros(*shape, value_states.shape[3])
        self.is_initialized = True

    def load(self, first: int, part: PrefixLayer) -> None:
        """Write the prefix and the own tokens of some rows to slots from ``first`` on."""
        own_keys, own_values = part.keys, part.values
        if not self.is_initialized:
            self.lazy_initialization(own_keys, own_values)
        slots = slice(first, first + len(own_keys))
        start = part.length - own_keys.shape[2]
        if part.prefix is not None:
            self.keys[slots, :, :start] = part.prefix.keys
            self.values[slots, :, :start] = part.prefix.values
        self.keys[slots, :, start : part.length] = own_keys
        self.values[slots, :, start : part.length] = own_values

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the tokens of one slot to another."""
        self.keys[target, :, :length] = self.keys[source, :, :length]
        self.values[target, :, :length] = self.values[source, :, :length]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write one token to the end of each of the first rows; return views of what they hold."""
        rows, ends, longest = self.owner.rows_at, self.owner.ends, self.owner.longest
        self.keys[rows, :, ends] = key_states[:, :, 0]
        self.values[rows, :, ends] = value_states[:, :, 0]
        return self.keys[: len(rows), :, :longest], self.values[: len(rows), :, :longest]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return length and offset of the keys that a query sees."""
        return self.owner.longest, 0

    def get_seq_length(self) -> int:
        """Return the length of the longest row."""
        return self.owner.longest

    def get_max_length(self) -> int:
        """Return how many tokens fit."""
        return self.owner.capacity


class SlotCache(Cache):
    """Slots for sequences that are decoded together; the first ones are in use.

    Attributes:
        rows: How many slots there are.
        capacity: Tokens that fit in each.
        rows_at: Numbers of the slots that the next token goes to, [B].
        ends: Tokens that each of them holds before it, [B].
        longest: Tokens that the longest of them holds after it.
    """

    def __init__(self, n_layers: int, rows: int, capacity: int) -> None:
        """Reserve room for ``rows`` sequences of ``capacity`` tokens."""
        self.rows, self.capacity, self.longest = rows, capacity, 0
        self.rows_at = self.ends = torch.empty(0, dtype=torch.long)
        self.parts = [SlotLayer(self) for _ in range(n_layers)]
        super().__init__(layers=[*self.parts])

    def load(self, first: int, cache: PrefixCache) -> None:
        """Write sequences that were read with a ``PrefixCache`` to slots from ``first`` on."""
        for slot, part in zip(self.parts, cache.parts, strict=True):
            slot.load(first, part)

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the tokens of one slot to another."""
        for part in self.parts:
            part.move(source, target, length)

    def expect(self, lengths: list[int], device: torch.device) -> Sight:
        """Announce the next token of the first rows; return what it sees."""
        self.longest = max(lengths) + 1
        self.rows_at = torch.arange(len(lengths), device=device)
        self.ends = torch.tensor(lengths, device=device)
        keys = torch.arange(self.longest, device=device)
        return Sight((keys <= self.ends[:, None])[:, None, None, :], keys[None])
