"""The transformer below its language-model head, called the same way from everywhere."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from inspect import signature
from typing import NamedTuple, cast

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import Cache, PreTrainedConfig, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast

from cai.errors import UserError

FULL, SLIDING = "full_attention", "sliding_attention"
"""Kinds of layers as configs name them."""
COMPILED = "layers_are_compiled"
"""Attribute of a network whose layers ``compile_blocks`` has seen to."""


class Sight(NamedTuple):
    """What the queries of a pass see.

    Attributes:
        mask: Which of S keys a query sees if the window allows it, [B, 1, Q, S].
        keys: Position ids of the keys, [B, S] or [1, S].
    """

    mask: Tensor
    keys: Tensor


def run_backbone(
    model: nn.Module,
    ids: Tensor,
    positions: Tensor,
    sight: Sight | None,
    cache: Cache | None = None,
) -> Tensor:
    """Return the last hidden states, [B, Q, H].

    Args:
        model: A causal LM, plain or wrapped by peft.
        ids: Token ids, [B, Q].
        positions: Their position ids, [B, Q].
        sight: What they see; None for plain causal attention.
        cache: Keys and values of earlier tokens; takes those of these tokens.
    """
    output = _forward(model, ids, positions, sight, cache)
    return cast(Tensor, output.last_hidden_state)


def run_all_layers(
    model: nn.Module,
    ids: Tensor,
    positions: Tensor,
    sight: Sight | None,
    cache: Cache | None = None,
) -> tuple[Tensor, ...]:
    """Return the embeddings and the output of every layer, [B, Q, H] each; the last is normed."""
    output = _forward(model, ids, positions, sight, cache, output_hidden_states=True)
    return cast(tuple[Tensor, ...], output.hidden_states)


def _forward(
    model: nn.Module,
    ids: Tensor,
    positions: Tensor,
    sight: Sight | None,
    cache: Cache | None,
    **options: bool,
) -> BaseModelOutputWithPast:
    network = causal_lm(model)
    # Adapters are kept in float32; beside a bfloat16 base they multiply in its precision, too.
    low = network.dtype is torch.bfloat16
    autocast = torch.autocast(network.device.type, torch.bfloat16, enabled=low)
    with autocast, _recomputing(network), _stance(network):
        output = network.base_model(
            input_ids=ids,
            attention_mask=None if sight is None else _masks(network, positions, sight),
            position_ids=positions,
            use_cache=cache is not None,
            **{_cache_argument(type(network.base_model).forward): cache},
            **options,
        )
    return cast(BaseModelOutputWithPast, output)


@functools.cache
def _cache_argument(forward: Callable[..., object]) -> str:
    """Name the argument that takes keys and values: transformers renamed it in version 5."""
    return "cache" if "cache" in signature(forward).parameters else "past_key_values"


@contextmanager
def _recomputing(network: PreTrainedModel) -> Iterator[None]:
    """Let the layers drop activations that a backward pass will need, if they have been told to.

    They do so in training mode only, which dropout must not see.
    """
    layers = blocks(network) if torch.is_grad_enabled() else []
    layers = [layer for layer in layers if layer.gradient_checkpointing]
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False


def _stance(network: PreTrainedModel) -> AbstractContextManager[None]:
    """Run compiled layers as they were written where no backward pass will follow.

    Sampling goes through caches that grow by a token at a time: compiling that pays for nothing.
    """
    if torch.is_grad_enabled() or not is_compiled(network):
        return nullcontext()
    return cast(AbstractContextManager[None], torch.compiler.set_stance("force_eager"))


def compile_blocks(network: PreTrainedModel) -> None:
    """Compile the layers, each on its own: they share the code, so that one is compiled for all."""
    for layer in blocks(network):
        layer.compile(dynamic=True)
    setattr(network, COMPILED, True)


def is_compiled(network: PreTrainedModel) -> bool:
    """Tell whether the layers have been compiled."""
    return getattr(network, COMPILED, False)


def blocks(network: PreTrainedModel) -> list[GradientCheckpointingLayer]:
    """Return the layers of a transformer, from attention to what is added to its input."""
    modules = network.base_model.modules()
    return [m for m in modules if isinstance(m, GradientCheckpointingLayer)]


def causal_lm(model: nn.Module) -> PreTrainedModel:
    """Return the transformers model itself; peft has put its layers into it."""
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    return cast(PreTrainedModel, inner)


def text_config(model: nn.Module) -> PreTrainedConfig:
    """Return the config of the part that reads and writes text."""
    return causal_lm(model).config.get_text_config()


def n_layers(model: nn.Module) -> int:
    """Return how many layers have keys and values."""
    return int(text_config(model).num_hidden_layers)


def n_positions(model: nn.Module) -> int | None:
    """Return how many positions a model was made for; None where there is no end.

    Longrope turns all positions of a batch in another way once its longest row is longer than some
    length (Phi-3), so that a row would depend on its neighbours: there the positions end.
    """
    config = text_config(model)
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = [rope, *(kind for kind in rope.values() if isinstance(kind, dict))]
    ends = [getattr(config, "max_position_embeddings", None)]
    ends += [
        kind.get("original_max_position_embeddings")
        for kind in kinds
        if kind.get("rope_type") == "longrope"
    ]
    return min((int(end) for end in ends if end), default=None)


def layer_kinds(model: nn.Module) -> list[str]:
    """Name the kinds of attention that a model's layers have, each once."""
    config = text_config(model)
    kinds = getattr(config, "layer_types", None)
    if kinds is None:  # GPT-Neo has names of its own
        named = getattr(config, "attention_layers", None) or []
        kinds = [FULL if name == "global" else f"{name}_attention" for name in named]
    if kinds:
        return sorted(set(kinds))
    return [SLIDING if getattr(config, "sliding_window", None) else FULL]


def read_logits(model: nn.Module, hidden: Tensor) -> Tensor:
    """Map hidden states [..., H] to float32 logits [..., V], scaled and capped as the model does.

    Granite divides them, Cohere and Falcon-H1 multiply them, Gemma caps them: c tanh(logits / c).
    """
    network, config = causal_lm(model), text_config(model)
    logits = cast(nn.Module, network.get_output_embeddings())(hidden).float()
    factor = getattr(config, "logit_scale", None) or getattr(config, "lm_head_multiplier", None)
    if factor is not None:
        logits = logits * factor
    if (divisor := getattr(config, "logits_scaling", None)) is not None:
        logits = logits / divisor
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:
        logits = cap * torch.tanh(logits / cap)
    return cast(Tensor, logits)


def check_context(model: nn.Module, tokens: int, what: str) -> None:
    """Refuse what the model was not made for.

    Raises:
        UserError: If ``tokens`` do not fit.
    """
    context = n_positions(model)
    if context is not None and tokens > context:
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


def _masks(network: PreTrainedModel, positions: Tensor, sight: Sight) -> Tensor | dict[str, Tensor]:
    """Make what the layers add to their scores, by kind where a model has several.

    A layer with a window of w sees the last w tokens, its own included.
    """
    kinds = layer_kinds(network)
    made = {FULL: sight.mask}
    if SLIDING in kinds:
        distance = positions[:, None, :, None] - sight.keys[:, None, None, :]
        made[SLIDING] = sight.mask & (distance < text_config(network).sliding_window)
    masks = {kind: _additive(made[kind], network.dtype) for kind in kinds}
    return masks if len(masks) > 1 else masks[kinds[0]]


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    # Eager attention adds the mask to its scores, and would take True for +1.
    lowest = torch.finfo(dtype).min
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, lowest)
