"""Prompts with one or more responses in one row each, so that a shared prompt is computed once.

A row reads ``prompt, response 1, response 2, ...``. Every response attends to the prompt and to
itself, and its positions go on from the prompt, so hidden states equal those of separate
sequences. Rows are padded on the right, where causal attention never looks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from cai import parallel
from cai.lm.backbone import causal_lm, n_layers, run_backbone
from cai.lm.cache import PrefixCache

R = TypeVar("R")


class Tree(NamedTuple):
    """A prompt and its responses, as token ids."""

    prompt: Sequence[int]
    responses: Sequence[Sequence[int]]

    @property
    def length(self) -> int:
        """Tokens in all."""
        return len(self.prompt) + sum(len(response) for response in self.responses)


class Packed(NamedTuple):
    """Rows ready for a model. R counts the responses of all rows, M their tokens.

    Attributes:
        ids: Token ids, [B, S].
        positions: Position ids, [B, S].
        mask: Which key a query sees, [B, 1, S, S]; None where plain causal attention will do.
        row: Row of each response token, [M].
        before: Position in the row of the token that comes before it, [M].
        targets: The response tokens themselves, [M].
        response: Which response each belongs to, [M], in 0..R-1.
        offset: Its place in that response, [M].
        last: Row and position of each response's last token, [R, 2].
    """

    ids: Tensor
    positions: Tensor
    mask: Tensor | None
    row: Tensor
    before: Tensor
    targets: Tensor
    response: Tensor
    offset: Tensor
    last: Tensor

    def to(self, device: torch.device) -> Packed:
        """Move every tensor."""
        mask = None if self.mask is None else self.mask.to(device)
        moved = {name: part.to(device) for name, part in self._asdict().items() if name != "mask"}
        return Packed(mask=mask, **moved)

    def grid(self, values: Tensor, fill: float = 0.0) -> Tensor:
        """Spread flat values [M] over [R, T], T being the longest response."""
        width = int(self.offset.max()) + 1
        out = values.new_full((len(self.last), width), fill)
        return out.index_put((self.response, self.offset), values)


def pack(trees: Sequence[Tree], pad_id: int = 0) -> Packed:
    """Lay out trees as rows of one batch."""
    if any(not tree.prompt for tree in trees):
        raise ValueError("a prompt is empty, so that nothing predicts the first token after it")
    width = max(tree.length for tree in trees)
    ids = torch.full((len(trees), width), pad_id)
    # Padding counts on: a fall in the positions would read as a second sequence in the row.
    positions = torch.arange(width).repeat(len(trees), 1)
    branching = any(len(tree.responses) > 1 for tree in trees)
    mask = _causal(len(trees), width) if branching else None
    columns: list[tuple[int, int, int, int, int]] = []
    last: list[tuple[int, int]] = []
    for row, tree in enumerate(trees):
        end = len(tree.prompt)
        ids[row, :end] = torch.tensor(tree.prompt)
        for response in tree.responses:
            start, end = end, end + len(response)
            ids[row, start:end] = torch.tensor(response)
            positions[row, start:end] = len(tree.prompt) + torch.arange(len(response))
            if mask is not None:
                mask[row, 0, start:end, len(tree.prompt) : start] = False
            for offset, token in enumerate(response):
                before = start + offset - 1 if offset else len(tree.prompt) - 1
                columns.append((row, before, token, len(last), offset))
            last.append((row, end - 1))
    row_of, before_of, targets, response_of, offset_of = (
        torch.tensor(columns, dtype=torch.long).reshape(-1, 5).unbind(1)
    )
    return Packed(
        ids=ids,
        positions=positions,
        mask=mask,
        row=row_of,
        before=before_of,
        targets=targets,
        response=response_of,
        offset=offset_of,
        last=torch.tensor(last),
    )


def hidden_states(model: nn.Module, packed: Packed, cache: PrefixCache | None = None) -> Tensor:
    """Run the backbone without its language-model head: [B, S, H].

    Args:
        model: A causal LM; the adapter that is active answers.
        packed: The batch.
        cache: Holds what comes before every row; takes the keys and values of the rows.
    """
    mask, positions = packed.mask, packed.positions
    if cache is not None and cache.length:
        own = mask if mask is not None else _causal(1, packed.ids.shape[1]).to(packed.ids.device)
        seen = own.new_ones(*own.shape[:3], cache.length)
        mask, positions = torch.cat([seen, own], dim=-1), positions + cache.length
    return run_backbone(model, packed.ids, positions, mask, cache)


def read_prefix(model: nn.Module, prefix: Sequence[int]) -> PrefixCache:
    """Compute the keys and values of what comes before several rows."""
    cache = PrefixCache(n_layers(model))
    hidden_states(model, pack([Tree(prefix, ())]).to(causal_lm(model).device), cache)
    return cache


def _causal(rows: int, width: int) -> Tensor:
    return torch.ones(rows, 1, width, width, dtype=torch.bool).tril()


def batches_of(
    trees: Sequence[Tree], max_tokens: int, max_rows: int | None = None
) -> Iterator[list[int]]:
    """Group trees of similar length; a group's padded size stays within ``max_tokens``."""
    group: list[int] = []
    for i in sorted(range(len(trees)), key=lambda i: (-trees[i].length, i)):
        width = trees[group[0]].length if group else 0
        full = (len(group) + 1) * width > max_tokens or len(group) == max_rows
        if group and full:
            yield group
            group = []
        group.append(i)
    if group:
        yield group


def read_in_batches(
    trees: Sequence[Tree],
    max_tokens: int,
    read: Callable[[list[int]], Sequence[R]],
    progress: Callable[[int], None] | None = None,
) -> list[R]:
    """Read trees in groups of similar length; the result of each, in their order.

    Several processes share the groups, which are those of one process, so that a result has the
    same bits whoever makes it.

    Args:
        trees: Prompts with responses.
        max_tokens: Padded tokens of a group.
        read: Returns a result for each of the trees with these indices.
        progress: Called with the number of trees that have just been read.
    """

    def work(groups: Sequence[list[int]]) -> list[Sequence[R]]:
        made = []
        for group in groups:
            made.append(read(group))
            if progress is not None:
                progress(len(group))
        return made

    groups = list(batches_of(trees, max_tokens))
    results = dict(
        pair
        for group, parts in zip(groups, parallel.spread(groups, work), strict=True)
        for pair in zip(group, parts, strict=True)
    )
    return [results[i] for i in range(len(trees))]
