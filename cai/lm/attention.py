"""Attention of one new token per row, where a processor spends its time when it decodes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from cai.lm.backbone import causal_lm

NAME = "cai_decoding"


def decoding_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend from one token per row, softmax(K q / sqrt(D) + mask)^T V, without repeating K or V.

    The queries of a group stand side by side as columns, so that one product reads the keys of
    their head once. Longer queries go to the library's own attention.

    Args:
        module: The attention layer.
        query: [B, heads, 1, D].
        key: [B, key heads, S, D].
        value: [B, key heads, S, D].
        attention_mask: Added to the scores, [B, 1, 1, S].
        kwargs: ``scaling`` and what else the library hands over.

    Returns:
        [B, 1, heads, D], and no weights.
    """
    if query.shape[2] > 1 or attention_mask is None:
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
        return output, None
    rows, heads, _, width = query.shape
    grouped = query.reshape(rows, key.shape[1], -1, width) * kwargs["scaling"]
    # K q is several times as fast as q K^T: it walks through the keys as they lie in memory.
    scores = torch.matmul(key, grouped.transpose(-1, -2)).transpose(-1, -2)
    weights = (scores.float() + attention_mask).softmax(-1).to(value.dtype)
    return torch.matmul(weights, value).reshape(rows, 1, heads, width), None


@contextmanager
def fast_decoding(model: nn.Module) -> Iterator[None]:
    """Use ``decoding_attention`` for a block, on a CPU; a GPU has better kernels for it."""
    network = causal_lm(model)
    before = network.config._attn_implementation
    if network.device.type != "cpu" or before != "sdpa":
        yield
        return
    network.set_attn_implementation(NAME)
    try:
        yield
    finally:
        network.set_attn_implementation(before)


AttentionInterface.register(NAME, decoding_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
