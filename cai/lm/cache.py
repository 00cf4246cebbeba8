"""A key-value cache that is allocated once, loses rows and never copies what it holds to grow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class PreallocatedLayer(CacheLayerMixin):
    """Keys and values of one layer in a buffer of fixed capacity."""

    is_sliding = False

    def __init__(self, rows: int, capacity: int) -> None:
        """Reserve room for ``rows`` sequences of ``capacity`` tokens, on the first update."""
        super().__init__()
        self.rows, self.capacity, self.length = rows, capacity, 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the buffers with the shapes, dtype and device of the first keys."""
        self.dtype, self.device = key_states.dtype, key_states.device
        heads, width = key_states.shape[1], key_states.shape[3]
        self.keys = key_states.new_empty(self.rows, heads, self.capacity, width)
        self.values = value_states.new_empty(self.rows, heads, self.capacity, value_states.shape[3])
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append along the token axis and return views of everything held."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[2]
        # A single row of keys is a prefix that all rows share.
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def keep(self, rows: Tensor) -> None:
        """Drop every row that is not listed."""
        self.keys, self.values = self.keys[rows], self.values[rows]
        self.rows = len(rows)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return length and offset of the keys that a query sees."""
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        """Return how many tokens are held."""
        return self.length

    def get_max_length(self) -> int:
        """Return how many tokens fit."""
        return self.capacity


class PreallocatedCache(Cache):
    """One preallocated layer for each layer of a model."""

    def __init__(self, n_layers: int, rows: int, capacity: int) -> None:
        """Reserve room for ``rows`` sequences of ``capacity`` tokens."""
        self.parts = [PreallocatedLayer(rows, capacity) for _ in range(n_layers)]
        super().__init__(layers=self.parts)

    def fill(self, prefix: Cache) -> None:
        """Start every row with the keys and values of a cache that holds one row."""
        for part, other in zip(self.parts, prefix.layers, strict=True):
            one = other.keys[:1], other.values[:1]
            length = other.get_seq_length()
            part.lazy_initialization(*one)
            part.update(one[0][:, :, :length], one[1][:, :, :length])

    def keep(self, rows: Tensor) -> None:
        """Drop every row that is not listed."""
        for part in self.parts:
            part.keep(rows)


def new_cache(model: torch.nn.Module, rows: int, capacity: int) -> PreallocatedCache:
    """Make an empty cache that fits a model."""
    return PreallocatedCache(int(model.config.num_hidden_layers), rows, capacity)  # type: ignore[union-attr, arg-type]
