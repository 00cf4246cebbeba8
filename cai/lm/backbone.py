"""The transformer below its language-model head, called the same way from everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast

from cai.errors import UserError


def run_backbone(
    model: nn.Module,
    ids: Tensor,
    positions: Tensor,
    mask: Tensor | None,
    cache: Cache | None = None,
) -> Tensor:
    """Return the last hidden states, [B, Q, H].

    Args:
        model: A causal LM, plain or wrapped by peft.
        ids: Token ids, [B, Q].
        positions: Their position ids, [B, Q].
        mask: Which of S keys a query sees, [B, 1, Q, S]; None for plain causal attention.
        cache: Keys and values of earlier tokens; takes those of these tokens.
    """
    output = _forward(model, ids, positions, mask, past_key_values=cache)
    return cast(Tensor, output.last_hidden_state)


def run_all_layers(
    model: nn.Module, ids: Tensor, positions: Tensor, mask: Tensor | None
) -> tuple[Tensor, ...]:
    """Return the embeddings and the output of every layer, [B, Q, H] each; the last is normed."""
    output = _forward(model, ids, positions, mask, output_hidden_states=True)
    return cast(tuple[Tensor, ...], output.hidden_states)


def _forward(
    model: nn.Module, ids: Tensor, positions: Tensor, mask: Tensor | None, **options: Any
) -> BaseModelOutputWithPast:
    network = causal_lm(model)
    # Adapters are kept in float32; beside a bfloat16 base they multiply in its precision, too.
    low = network.dtype is torch.bfloat16
    autocast = torch.autocast(network.device.type, torch.bfloat16, enabled=low)
    with autocast, _recomputing(network):
        output = network.base_model(
            input_ids=ids,
            attention_mask=None if mask is None else _additive(mask, network.dtype),
            position_ids=positions,
            use_cache=options.get("past_key_values") is not None,
            **options,
        )
    return cast(BaseModelOutputWithPast, output)


@contextmanager
def _recomputing(network: PreTrainedModel) -> Iterator[None]:
    """Let the layers drop activations that a backward pass will need, if they have been told to.

    They do so in training mode only, which dropout must not see.
    """
    modules = network.base_model.modules() if torch.is_grad_enabled() else ()
    layers = [m for m in modules if isinstance(m, GradientCheckpointingLayer)]
    layers = [layer for layer in layers if layer.gradient_checkpointing]
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False


def causal_lm(model: nn.Module) -> PreTrainedModel:
    """Return the transformers model itself; peft has put its layers into it."""
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    return cast(PreTrainedModel, inner)


def n_layers(model: nn.Module) -> int:
    """Return how many layers have keys and values."""
    return int(causal_lm(model).config.num_hidden_layers)


def output_head(model: nn.Module) -> nn.Module:
    """Return the module that maps hidden states to logits."""
    return cast(nn.Module, causal_lm(model).get_output_embeddings())


def check_context(model: nn.Module, tokens: int, what: str) -> None:
    """Refuse what the model was not made for: beyond its context or its attention window.

    Raises:
        UserError: If ``tokens`` do not fit.
    """
    config = causal_lm(model).config
    window = getattr(config, "sliding_window", None) or config.max_position_embeddings
    context = min(int(window), int(config.max_position_embeddings))
    if tokens > context:
        raise UserError(
            f"{what} of {tokens} tokens does not fit the model's context of {context}: "
            "shorten the prompt or the reply"
        )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Turn dropout off for a block and give every module its mode back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    # Eager attention adds the mask to its scores, and would take True for +1.
    lowest = torch.finfo(dtype).min
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, lowest)
