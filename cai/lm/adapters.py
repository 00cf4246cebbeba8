"""Which layers LoRA adapters reach, and how much of a model that is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple, cast

import torch
from peft import LoraConfig, TaskType
from peft.tuners.lora import LoraLayer, ParamWrapper
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from cai.config import AdapterConfig
from cai.errors import UserError

ALL_LINEAR = "all-linear"
SHOWN = 12
"""Names of layers in a message."""


class Targets(NamedTuple):
    """What adapters reach, by the names that peft matches.

    Attributes:
        modules: Linear layers, by the last part of their name, or by all of it where that part
            names something else too.
        parameters: Stacked experts, which are bare weights.
    """

    modules: list[str]
    parameters: list[str]


class Coverage(NamedTuple):
    """How far adapters reach.

    Attributes:
        share: Of the weights below embeddings and output head.
        frozen: Kinds of matrices that they leave alone, by name.
    """

    share: float
    frozen: list[str]


def find_targets(network: PreTrainedModel, settings: AdapterConfig) -> Targets:
    """Choose the layers.

    Raises:
        UserError: If a name is unknown, or the model has no layer that can be adapted.
    """
    linear = [name for name, _ in _linear_layers(network)]
    if not linear:
        raise UserError(
            f"adapters can't be put on {type(network).__name__}: it has no linear layers"
        )
    if settings.targets == [ALL_LINEAR]:
        experts = sorted({_last(name, 2) for name, p in _body(network) if p.dim() == 3})
        others = {
            _last(name)
            for name, module in network.named_modules()
            if not isinstance(module, nn.Linear | Conv1D)
        }
        layers = {_last(name) if _last(name) not in others else name for name in linear}
        return Targets(sorted(layers), experts)
    kinds = sorted({_last(name) for name in linear})
    for target in settings.targets:
        if not any(name == target or name.endswith(f".{target}") for name in linear):
            raise UserError(
                f"model.lora.targets={settings.targets} names no layer of this model by {target!r}:"
                f" use [{ALL_LINEAR}], or some of {', '.join(kinds[:SHOWN])}"
            )
    return Targets(list(settings.targets), [])


def skip_input_casts(network: PreTrainedModel) -> None:
    """Spare peft the conversion of every layer's input to the adapters' float32.

    Beside a bfloat16 base a pass runs under autocast, which would convert it back: the same numbers
    for two copies of the activations in every adapted layer.
    """
    low = network.dtype is torch.bfloat16
    for module in network.modules():
        if isinstance(module, LoraLayer):
            module.cast_input_dtype_enabled = not low


def lora_config(settings: AdapterConfig, targets: Targets, task: TaskType) -> LoraConfig:
    """Describe an adapter to peft."""
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules=targets.modules,
        target_parameters=targets.parameters or None,
        lora_dropout=0.0,
        task_type=task,
    )


def coverage(network: PreTrainedModel, targets: Targets) -> Coverage:
    """Count the weights that adapters reach, before any is there."""
    total = 0
    frozen: Counter[str] = Counter()
    for name, parameter in _body(network):
        total += parameter.numel()
        if parameter.dim() > 1 and not _is_reached(name, targets):
            frozen[_last(name.rpartition(".")[0])] += parameter.numel()
    share = n_reached(network, targets) / max(1, total)
    return Coverage(share, [name for name, _ in frozen.most_common(SHOWN)])


def n_reached(network: PreTrainedModel, targets: Targets) -> int:
    """Return how many weights adapters reach, before any is there."""
    return sum(p.numel() for name, p in _body(network) if _is_reached(name, targets))


def _is_reached(name: str, targets: Targets) -> bool:
    module = name.rpartition(".")[0]
    return any(_matches(module, target) for target in targets.modules) or any(
        _matches(name, target) for target in targets.parameters
    )


def adapted_weights(network: nn.Module, adapter: str) -> Iterator[tuple[LoraLayer, nn.Parameter]]:
    """Yield the layers of an adapter, each with the weight that it adds to."""
    for module in network.modules():
        if isinstance(module, LoraLayer) and adapter in module.lora_A:
            stacked = isinstance(module, ParamWrapper)
            weight = module.get_param() if stacked else module.get_base_layer().weight
            yield module, cast(nn.Parameter, weight)


def _linear_layers(network: PreTrainedModel) -> Iterator[tuple[str, nn.Module]]:
    head = network.get_output_embeddings()
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear | Conv1D) and module is not head:
            yield name, module


def _body(network: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights that are neither embeddings nor the output head."""
    outside = {id(network.get_output_embeddings()), id(network.get_input_embeddings())}
    outer = [
        f"{name}."
        for name, module in network.named_modules()
        if id(module) in outside or isinstance(module, nn.Embedding)
    ]
    for name, parameter in network.named_parameters():
        if not name.startswith(tuple(outer)):
            yield name, parameter


def _matches(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _last(name: str, parts: int = 1) -> str:
    return ".".join(name.split(".")[-parts:])


def describe(found: Coverage, settings: AdapterConfig) -> str:
    """Say in one line how far adapters reach."""
    rest = f"; frozen: {', '.join(found.frozen)}" if found.frozen else ""
    return f"adapters of rank {settings.rank} reach {found.share:.1%} of the weights{rest}"
