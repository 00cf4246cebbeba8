"""All weights of a model once more, which take the place of the base's own for a block."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from cai.files import filling

WHOLE_FILE = "model.safetensors"

Slots = dict[str, list[tuple[nn.Module, str]]]
"""Where each weight stands in a network, by its name; a tied one stands twice."""
Weights = dict[str, nn.Parameter]


class Wholes:
    """The base's own weights and named copies of them, of which one set stands in the network."""

    def __init__(self, network: PreTrainedModel) -> None:
        """Begin without copies."""
        self._network = network
        self._named: dict[str, Weights] = {}
        self._slots: Slots = {}
        self._own: Weights = {}

    def get(self, name: str | None) -> Weights | None:
        """Return the copy of a name, if it is one of a copy."""
        return None if name is None else self._named.get(name)

    def add(self, name: str, dtype: torch.dtype) -> Weights:
        """Copy the base's own weights; the copy is not trained."""
        if not self._named:
            self._slots = slots_of(self._network)
            self._own = _standing(self._slots)
        self._named[name] = {
            key: nn.Parameter(weight.detach().to(dtype, copy=True), requires_grad=False)
            for key, weight in self._own.items()
        }
        return self._named[name]

    def counterpart(self, name: str, own: nn.Parameter) -> nn.Parameter:
        """Return the copy of one of the base's own weights."""
        [key] = [key for key, weight in self._own.items() if weight is own]
        return self._named[name][key]

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the weights of all copies."""
        for weights in self._named.values():
            yield from weights.values()

    @contextmanager
    def in_place(self, name: str | None) -> Iterator[None]:
        """Let a copy stand in the network for a block, or the base's own weights.

        The optimizer keeps its hold on weights that do not stand there.
        """
        before = _standing(self._slots)
        _put(self._slots, self.get(name) or self._own)
        try:
            yield
        finally:
            _put(self._slots, before)


def slots_of(network: nn.Module) -> Slots:
    """Find the weights of a network, adapters aside."""
    found: dict[int, tuple[str, list[tuple[nn.Module, str]]]] = {}
    for path, module in network.named_modules():
        for key, parameter in module._parameters.items():
            if parameter is None or "lora_" in f"{path}.{key}":
                continue
            name = f"{path}.{key}".replace(".base_layer", "")
            found.setdefault(id(parameter), (name, []))[1].append((module, key))
    return dict(found.values())


@torch.no_grad()
def fill(weights: Weights, folder: Path) -> bool:
    """Overwrite weights by those that ``save_whole`` wrote; tell whether they fit."""
    state = load_file(folder / WHOLE_FILE)
    shapes = {name: weight.shape for name, weight in weights.items()}
    if shapes != {name: value.shape for name, value in state.items()}:
        return False
    for name, weight in weights.items():
        weight.copy_(state[name])
    return True


def save_whole(
    network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, weights: Weights, folder: Path
) -> None:
    """Write a model folder as transformers does, which model=folder reads, too."""
    config = copy.deepcopy(network.config)
    config.dtype = next(iter(weights.values())).dtype
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    state: dict[str, Tensor] = {k: w.detach().cpu().contiguous() for k, w in weights.items()}
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    model.generation_config = network.generation_config
    with filling(folder) as scratch:
        model.save_pretrained(scratch, max_shard_size="1TB")
        tokenizer.save_pretrained(scratch)


def has_whole(folder: Path) -> bool:
    """Tell whether a model folder holds all weights."""
    return (folder / WHOLE_FILE).exists()


def _standing(slots: Slots) -> Weights:
    """Return the weights that stand in a network now."""
    found = {}
    for name, [(module, key), *_] in slots.items():
        parameter = module._parameters[key]
        assert parameter is not None
        found[name] = parameter
    return found


def _put(slots: Slots, weights: Weights) -> None:
    for name, places in slots.items():
        for module, key in places:
            module._parameters[key] = weights[name]
