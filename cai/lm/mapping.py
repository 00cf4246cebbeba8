"""Reading many trees: what they have in common once, the rest in batches of similar length.

Trees of one prompt are put together, and what all prompts begin with, such as the system prompt of
a chat template, is computed once. Several processes share the batches, which are those of one
process, so that a result has the same bits whoever makes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from cai import parallel
from cai.lm.backbone import causal_lm, n_layers
from cai.lm.cache import PrefixCache
from cai.lm.packing import (
    Packed,
    Tree,
    batches_of,
    pack,
    read_prefix,
    shared_beginning,
    shared_in_training,
)

WIDEST = 512
"""Tokens of a row up to which trees of one prompt are put together: they see nothing of each other,
and what is not seen is computed all the same."""

Progress = Callable[[int], None]
"""Called with the number of trees that have just been read."""

Read = Callable[[Packed, PrefixCache | None], Tensor]
"""Maps a batch, and what comes before each of its rows, to numbers."""


def map_tokens(
    model: nn.Module,
    trees: Sequence[Tree],
    max_tokens: int,
    read: Read,
    progress: Progress | None = None,
    *,
    sharing: bool = True,
) -> list[list[Tensor]]:
    """Read numbers off every response token: per tree and response [T, ...], on the processor.

    Args:
        model: A causal LM; the adapter that is active reads what prompts begin with.
        trees: Prompts with their responses.
        max_tokens: Padded tokens in one forward pass.
        read: Gives numbers of the response tokens of a batch, [M, ...].
        progress: Told how many trees are done.
        sharing: Whether what trees have in common is computed once for all of them; False: each row
            is computed as a training step does.
    """

    def split(numbers: Tensor, rows: Sequence[Tree]) -> list[Sequence[Tensor]]:
        parts = iter(numbers.split([len(part) for row in rows for part in row.responses]))
        return [[next(parts) for _ in row.responses] for row in rows]

    return _Map(model, max_tokens, read, split, progress).over(trees, sharing)


def map_responses(
    model: nn.Module,
    trees: Sequence[Tree],
    max_tokens: int,
    read: Read,
    progress: Progress | None = None,
) -> list[Tensor]:
    """Read numbers off every response: per tree [responses, ...], on the processor.

    Args:
        model: A causal LM; the adapter that is active reads what prompts begin with.
        trees: Prompts with their responses.
        max_tokens: Padded tokens in one forward pass.
        read: Gives numbers of the responses of a batch, [R, ...].
        progress: Told how many trees are done.
    """

    def split(numbers: Tensor, rows: Sequence[Tree]) -> Sequence[Tensor]:
        parts: Sequence[Tensor] = numbers.split([len(row.responses) for row in rows])
        return parts

    return _Map(model, max_tokens, read, split, progress).over(trees, sharing=True)


class Joined(NamedTuple):
    """Trees of which those of one prompt are put together.

    Attributes:
        rows: What is read.
        places: Of each tree that was given, its row and which response of that is its first.
    """

    rows: list[Tree]
    places: list[tuple[int, int]]


def join(trees: Sequence[Tree]) -> Joined:
    """Put trees of one prompt together, as long as the row is not too wide."""
    rows: list[Tree] = []
    places: list[tuple[int, int]] = []
    latest: dict[tuple[int, ...], int] = {}
    for tree in trees:
        key = tuple(tree.prompt)
        row = latest.get(key)
        if row is None or rows[row].length + tree.length - len(tree.prompt) > WIDEST:
            latest[key] = row = len(rows)
            rows.append(Tree(tree.prompt, []))
        places.append((row, len(rows[row].responses)))
        rows[row] = Tree(tree.prompt, [*rows[row].responses, *tree.responses])
    return Joined(rows, places)


class _Map(NamedTuple):
    """How trees are read; ``split`` gives each row its part of a batch's numbers."""

    model: nn.Module
    max_tokens: int
    read: Read
    split: Callable[[Tensor, Sequence[Tree]], Sequence[Any]]
    progress: Progress | None

    def over(self, trees: Sequence[Tree], sharing: bool) -> list[Any]:
        """Return what is read off each tree."""
        if not sharing:
            return self._rows(trees, None, [1] * len(trees), shared_in_training(trees))
        rows, places = join(trees)
        counts = [0] * len(rows)
        for row, _ in places:
            counts[row] += 1
        shared = shared_beginning([row.prompt for row in rows])
        before = read_prefix(self.model, rows[0].prompt[:shared]) if shared else None
        found = self._rows([Tree(r.prompt[shared:], r.responses) for r in rows], before, counts)
        return [
            found[row][first : first + len(tree.responses)]
            for tree, (row, first) in zip(trees, places, strict=True)
        ]

    def _rows(
        self,
        rows: Sequence[Tree],
        before: PrefixCache | None,
        counts: Sequence[int],
        shared: int = 0,
    ) -> list[Any]:
        groups = list(batches_of(rows, self.max_tokens))
        device, layers = causal_lm(self.model).device, n_layers(self.model)

        def work(groups: Sequence[list[int]]) -> list[Sequence[Any]]:
            made = []
            for group in groups:
                chosen = [rows[i] for i in group]
                cache = PrefixCache(layers, before) if before is not None else None
                numbers = self.read(pack(chosen, shared=shared).to(device), cache).cpu()
                made.append(self.split(numbers, chosen))
                if self.progress is not None:
                    self.progress(sum(counts[i] for i in group))
            return made

        found: dict[int, Any] = {}
        for group, parts in zip(groups, parallel.spread(groups, work), strict=True):
            found |= zip(group, parts, strict=True)
        return [found[i] for i in range(len(rows))]
