"""Attention on a processor, where rows are short and the library's kernel is made for long ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "cai_cpu"
WIDEST = 512
"""Longest row whose attention weights are kept for the backward pass; beyond, memory matters."""


def cpu_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend, softmax(scale Q K^T + mask) V, without repeating the keys and values of a group.

    The queries of all heads that share a key head are one matrix, so that its keys are read once.
    Long rows, dropout and masks of the library's own go to the library.

    Args:
        module: The attention layer.
        query: [B, heads, Q, D].
        key: [B, key heads, S, D].
        value: [B, key heads, S, D].
        attention_mask: Added to the scores, [B, 1, Q, S]; None for causal attention.
        kwargs: ``scaling``, ``dropout`` and what else the library hands over.

    Returns:
        [B, Q, heads, D], and no weights.
    """
    queries, keys = query.shape[2], key.shape[2]
    added = attention_mask is not None and attention_mask.is_floating_point()
    causal = attention_mask is None and 1 < queries == keys
    if kwargs.get("dropout") or not (added or causal) or (queries > 1 and keys > WIDEST):
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
        return output, None
    scale = kwargs.get("scaling") or query.shape[-1] ** -0.5
    if attention_mask is not None and queries == 1:
        return _one_token(query, key, value, attention_mask, scale), None
    if attention_mask is None:
        future = query.new_full((queries, keys), -torch.inf).triu(1)
        attention_mask = future.expand(1, 1, queries, keys)
    return _short_rows(query, key, value, attention_mask, scale), None


def _short_rows(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
    rows, heads, queries, width = query.shape
    groups, keys = key.shape[1:3]
    shape = (rows * groups, heads // groups * queries, keys)
    every = mask[:, 0].to(query.dtype).repeat(1, heads // groups, 1)
    scores = torch.baddbmm(
        every.expand(shape) if len(every) == 1 else every.repeat_interleave(groups, 0),
        query.reshape(shape[0], shape[1], width),
        key.reshape(shape[0], keys, width).transpose(1, 2),
        alpha=scale,
    )
    output = torch.bmm(scores.softmax(-1).to(value.dtype), value.reshape(shape[0], keys, -1))
    return output.reshape(rows, heads, queries, -1).transpose(1, 2)


def _one_token(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
    rows, heads, _, width = query.shape
    grouped = query.reshape(rows, key.shape[1], -1, width) * scale
    # K q is several times as fast as q K^T: it walks through the keys as they lie in memory.
    scores = torch.matmul(key, grouped.transpose(-1, -2)).transpose(-1, -2)
    weights = (scores.float() + mask).softmax(-1).to(value.dtype)
    return torch.matmul(weights, value).reshape(rows, 1, heads, -1)


def use_cpu_attention(network: PreTrainedModel) -> None:
    """Let a model that is on a processor attend this way; a GPU has better kernels."""
    if network.device.type == "cpu" and network.config._attn_implementation == "sdpa":
        network.set_attn_implementation(NAME)


AttentionInterface.register(NAME, cpu_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
