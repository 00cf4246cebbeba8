"""Reading many trees: in batches of similar length, and back in the order they were given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor, nn

from cai.lm.backbone import causal_lm
from cai.lm.packing import Packed, Tree, batches_of, pack

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
    done: list[list[Tensor]] = [[] for _ in trees]
    for group, packed in _batches(model, trees, max_tokens, progress):
        lengths = [len(response) for i in group for response in trees[i].responses]
        parts = iter(read(packed).cpu().split(lengths))
        for i in group:
            done[i] = [next(parts) for _ in trees[i].responses]
    return done


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
    done: dict[int, Tensor] = {}
    for group, packed in _batches(model, trees, max_tokens, progress):
        sizes = [len(trees[i].responses) for i in group]
        done |= zip(group, read(packed).cpu().split(sizes), strict=True)
    return [done[i] for i in range(len(trees))]


def _batches(
    model: nn.Module, trees: Sequence[Tree], max_tokens: int, progress: Progress | None
) -> Iterator[tuple[list[int], Packed]]:
    device = causal_lm(model).device
    for group in batches_of(trees, max_tokens):
        yield group, pack([trees[i] for i in group]).to(device)
        if progress is not None:
            progress(len(group))
