"""Prompts with one or more responses in one row each, so that a shared prompt is computed once.

A row reads ``prompt, response 1, response 2, ...``. Every response attends to the prompt and to
itself, and its positions go on from the prompt, so hidden states equal those of separate
sequences. Rows are padded on the right, where causal attention never looks. What all rows begin
with, such as the system prompt of a chat template, can be computed once for a batch, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel

from cai.lm.backbone import (
    Sight,
    blocks,
    causal_lm,
    is_compiled,
    n_layers,
    run_all_layers,
    run_backbone,
)
from cai.lm.cache import PrefixCache

SHARED_TOKENS = 16
"""A beginning that all prompts share is computed once from this length on."""
WORTH = 8
"""And in training if it is at least one token in so many."""


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
        part: 0 for a token of the prompt and the number of its response in the row for others,
            [B, S]; None where plain causal attention will do.
        row: Row of each response token, [M].
        before: Position in the row of the token that comes before it, [M].
        targets: The response tokens themselves, [M].
        response: Which response each belongs to, [M], in 0..R-1.
        offset: Its place in that response, [M].
        last: Row and position of each response's last token, [R, 2].
        shared: Tokens that all rows begin with and that are computed once; 0: none.
    """

    ids: Tensor
    positions: Tensor
    part: Tensor | None
    row: Tensor
    before: Tensor
    targets: Tensor
    response: Tensor
    offset: Tensor
    last: Tensor
    shared: int = 0

    @property
    def mask(self) -> Tensor | None:
        """Which key a query sees, [B, 1, S, S]; None where plain causal attention will do.

        It is made where the tokens are: a thousand bytes for each of them would have to be moved.
        """
        if self.part is None:
            return None
        keys = self.part[:, None, None, :]
        return _causal(self.ids.shape[1], self.ids.device) & (
            (keys == 0) | (keys == self.part[:, None, :, None])
        )

    @property
    def sight(self) -> Sight | None:
        """What the queries of the rows see; None where plain causal attention will do."""
        mask = self.mask
        return None if mask is None else Sight(mask, self.positions)

    def to(self, device: torch.device) -> Packed:
        """Move every tensor."""
        moved: dict[str, Any] = {
            name: each.to(device) if isinstance(each, Tensor) else each
            for name, each in self._asdict().items()
        }
        return Packed(**moved)

    def grid(self, values: Tensor, fill: float = 0.0) -> Tensor:
        """Spread flat values [M] over [R, T], T being the longest response."""
        width = int(self.offset.max()) + 1
        out = values.new_full((len(self.last), width), fill)
        return out.index_put((self.response, self.offset), values)


def pack(trees: Sequence[Tree], pad_id: int = 0, shared: int = 0) -> Packed:
    """Lay out trees as rows of one batch, whose first ``shared`` tokens are the same in all."""
    if any(not tree.prompt for tree in trees):
        raise ValueError("a prompt is empty, so that nothing predicts the first token after it")
    width = max(tree.length for tree in trees)
    ids = torch.full((len(trees), width), pad_id)
    # Padding counts on: a fall in the positions would read as a second sequence in the row.
    positions = torch.arange(width).repeat(len(trees), 1)
    branching = any(len(tree.responses) > 1 for tree in trees)
    part = torch.zeros(len(trees), width, dtype=torch.long) if branching else None
    columns: list[tuple[int, int, int, int, int]] = []
    last: list[tuple[int, int]] = []
    for row, tree in enumerate(trees):
        end = len(tree.prompt)
        ids[row, :end] = torch.tensor(tree.prompt)
        for number, response in enumerate(tree.responses, start=1):
            start, end = end, end + len(response)
            ids[row, start:end] = torch.tensor(response)
            positions[row, start:end] = len(tree.prompt) + torch.arange(len(response))
            if part is not None:
                part[row, start:] = number  # padding is nobody's to see: it may stand with the last
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
        part=part,
        row=row_of,
        before=before_of,
        targets=targets,
        response=response_of,
        offset=offset_of,
        last=torch.tensor(last),
        shared=shared,
    )


def hidden_states(model: nn.Module, packed: Packed, cache: PrefixCache | None = None) -> Tensor:
    """Run the backbone without its language-model head: [B, S, H].

    Args:
        model: A causal LM; the adapter that is active answers.
        packed: The batch.
        cache: Holds what comes before every row; takes the keys and values of the rows.
    """
    if cache is None and packed.shared and _arithmetic_counts(causal_lm(model)):
        return _behind_shared(model, packed)
    return run_backbone(model, packed.ids, *_places(packed, cache), cache)


def _arithmetic_counts(network: PreTrainedModel) -> bool:
    """Tell whether fewer tokens are worth a second pass over the layers.

    A GPU waits for that longer than for some tokens more. Layers that compute their activations
    twice take no keys and values of earlier tokens, compiled ones should not meet them, and of a
    sharded base every pass has to be gathered.
    """
    layers = blocks(network)
    apart = any(each.gradient_checkpointing or isinstance(each, FSDPModule) for each in layers)
    return network.device.type == "cpu" and not apart and not is_compiled(network)


def _behind_shared(model: nn.Module, packed: Packed) -> Tensor:
    """Compute what all rows begin with once, and the rest behind it; gradients go through both."""
    n, rows = packed.shared, len(packed.ids)
    mask = packed.mask
    if mask is None:
        mask = _causal(packed.ids.shape[1], packed.ids.device)
    before = PrefixCache(n_layers(model))
    first = run_backbone(model, packed.ids[:1, :n], packed.positions[:1, :n], None, before)
    cache = PrefixCache(n_layers(model), before)
    sight = Sight(mask[:, :, n:], packed.positions)
    rest = run_backbone(model, packed.ids[:, n:], packed.positions[:, n:], sight, cache)
    return torch.cat([first.expand(rows, -1, -1), rest], dim=1)


def all_hidden_states(
    model: nn.Module, packed: Packed, cache: PrefixCache | None = None
) -> tuple[Tensor, ...]:
    """Run it as ``hidden_states`` does; return the embeddings and every layer: [B, S, H] each."""
    return run_all_layers(model, packed.ids, *_places(packed, cache), cache)


def _places(packed: Packed, cache: PrefixCache | None) -> tuple[Tensor, Sight | None]:
    """Return the positions of a batch behind what a cache holds, and what its tokens see."""
    own, positions = packed.mask, packed.positions
    if cache is None or not cache.length:
        return positions, None if own is None else Sight(own, positions)
    if own is None:
        own = _causal(packed.ids.shape[1], packed.ids.device)
    seen = own.new_ones(*own.shape[:3], cache.length)
    before = torch.arange(cache.length, device=positions.device)
    positions = positions + cache.length
    keys = torch.cat([before.expand(len(positions), -1), positions], dim=-1)
    return positions, Sight(torch.cat([seen, own], dim=-1), keys)


def shared_beginning(prompts: Sequence[Sequence[int]]) -> int:
    """Count the tokens that all prompts begin with, and go on after; 0 for too few to matter."""
    if len(prompts) < 2:
        return 0
    first, last = list(min(prompts, key=list)), list(max(prompts, key=list))
    pairs = zip(first[:-1], last[:-1], strict=False)
    length = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return length if length >= SHARED_TOKENS else 0


def shared_in_training(trees: Sequence[Tree]) -> int:
    """Count the tokens that trees begin with, if they are a fair part of what is computed.

    It is one number for all that is read and trained together, so that a row is computed in the
    same way beside any neighbours, and the first ratio of an update is 1 in low precision, too.
    """
    shared = shared_beginning([tree.prompt for tree in trees])
    return shared if WORTH * shared * len(trees) >= sum(tree.length for tree in trees) else 0


def read_prefix(model: nn.Module, prefix: Sequence[int]) -> PrefixCache:
    """Compute the keys and values of what comes before several rows."""
    cache = PrefixCache(n_layers(model))
    hidden_states(model, pack([Tree(prefix, ())]).to(causal_lm(model).device), cache)
    return cache


def _causal(width: int, device: torch.device) -> Tensor:
    return torch.ones(1, 1, width, width, dtype=torch.bool, device=device).tril()


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
