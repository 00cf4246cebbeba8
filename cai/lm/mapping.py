"""Reading many trees: in batches of similar length, and back in the order they were given.

Several processes share the batches, which are those of one process, so that a result has the same
bits whoever makes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from torch import Tensor, nn

from cai import parallel
from cai.lm.backbone import causal_lm
from cai.lm.packing import Packed, Tree, batches_of, pack

R = TypeVar("R")

Progress = Callable[[int], None]
"""Called with the number of trees that have just been read."""


def map_tokens(
    model: nn.Module,
    trees: Sequence[Tree],
    max_tokens: int,
    read: Callable[[Packed], Tensor],
    progress: Progress | None = None,
) -> list[list[Tensor]]:
    """Read numbers off every response token: per tree and response [T, ...], on the processor.

    Args:
        model: Tells the device.
        trees: Prompts with their responses.
        max_tokens: Padded tokens in one forward pass.
        read: Maps a batch to numbers of its response tokens, [M, ...].
        progress: Told how many trees are done.
    """
    device = causal_lm(model).device

    def of(group: list[int]) -> list[list[Tensor]]:
        lengths = [len(response) for i in group for response in trees[i].responses]
        numbers = read(pack([trees[i] for i in group]).to(device))
        parts = iter(numbers.cpu().split(lengths))
        return [[next(parts) for _ in trees[i].responses] for i in group]

    return _in_batches(trees, max_tokens, of, progress)


def map_responses(
    model: nn.Module,
    trees: Sequence[Tree],
    max_tokens: int,
    read: Callable[[Packed], Tensor],
    progress: Progress | None = None,
) -> list[Tensor]:
    """Read numbers off every response: per tree [responses, ...], on the processor.

    Args:
        model: Tells the device.
        trees: Prompts with their responses.
        max_tokens: Padded tokens in one forward pass.
        read: Maps a batch to numbers of its responses, [R, ...].
        progress: Told how many trees are done.
    """
    device = causal_lm(model).device

    def of(group: list[int]) -> list[Tensor]:
        sizes = [len(trees[i].responses) for i in group]
        return list(read(pack([trees[i] for i in group]).to(device)).cpu().split(sizes))

    return _in_batches(trees, max_tokens, of, progress)


def _in_batches(
    trees: Sequence[Tree],
    max_tokens: int,
    read: Callable[[list[int]], Sequence[R]],
    progress: Progress | None,
) -> list[R]:
    def work(groups: Sequence[list[int]]) -> list[Sequence[R]]:
        made = []
        for group in groups:
            made.append(read(group))
            if progress is not None:
                progress(len(group))
        return made

    groups = list(batches_of(trees, max_tokens))
    found: dict[int, R] = {}
    for group, parts in zip(groups, parallel.spread(groups, work), strict=True):
        found |= zip(group, parts, strict=True)
    return [found[i] for i in range(len(trees))]
