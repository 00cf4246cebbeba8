"""One frozen base and any number of named LoRA adapters on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import (
    LoraConfig,
    PeftModel,
    TaskType,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel

from cai.config import HardwareConfig, ModelConfig, Quantization
from cai.errors import UserError
from cai.lm.adapters import adapted_weights, lora_config, skip_input_casts
from cai.lm.base import Base
from cai.lm.sampler import LocalSampler, Sampler
from cai.lm.shard import is_sharded
from cai.lm.whole import Weights, Wholes, fill, has_whole

ADAPTER_FILE = "adapter_model.safetensors"


class LanguageModel:
    """A base that is never trained, and adapters of which at most one is active.

    Helpful, SL-CAI, policy, value and preference model are adapters on one copy of the base, so
    that PPO needs one base in memory. An adapter always stands alone on the base: what continues
    another starts as a copy of its weights. The reference of RL is thus the adapter of SL-CAI and
    never the bare base.
    """

    def __init__(self, base: Base, config: ModelConfig, hardware: HardwareConfig) -> None:
        """Stand on a base without adapters.

        Args:
            base: The network, its chat format and the layers that adapters reach.
            config: Gives rank and alpha of the adapters.
            hardware: Says how much fits in memory.
        """
        base.network.requires_grad_(False)
        self.chat = base.chat
        self.config = config
        self.hardware = hardware
        self.sharded = is_sharded(hardware)
        self._shared = base
        self._base = base.network
        self._wholes = Wholes(base.network)
        self._sampler: Sampler | None = None

    @property
    def _peft(self) -> PeftModel | None:
        return self._shared.peft

    @property
    def network(self) -> PreTrainedModel:
        """The module to call; it answers with the adapter that is active.

        peft puts its layers into the base itself, so this stays the model's own class.
        """
        return self._base

    @property
    def sampler(self) -> Sampler:
        """Who samples with these adapters: this process, unless another has been given."""
        return self._sampler or LocalSampler(self)

    @sampler.setter
    def sampler(self, given: Sampler) -> None:
        self._sampler = given

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._base.device

    @property
    def hidden_size(self) -> int:
        """Width of the last hidden state."""
        return int(self._base.config.get_text_config().hidden_size)

    @property
    def read_tokens(self) -> int:
        """Padded tokens of a forward pass that keeps nothing for a backward pass."""
        return 2 * self.hardware.micro_tokens

    @property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end a response."""
        return self.chat.stop_ids

    def add_adapter(self, name: str, seed: int, start: Path | None = None) -> None:
        """Add an adapter: a copy of the one saved in ``start``, or new ones drawn from ``seed``.

        Args:
            name: What ``use`` calls it.
            seed: Seeds the initial weights; set before they are drawn.
            start: Folder of a saved adapter, or of a model that is the bare base; one of all
                weights makes what ``add_whole`` does, in the precision of the base.

        Raises:
            UserError: If the saved adapter does not fit this base.
        """
        if start is not None and has_whole(start):
            self.add_whole(name, start, self._base.dtype)
            return
        lora = self.lora_config(TaskType.CAUSAL_LM)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if self._peft is None:
                self._shared.peft = PeftModel(self._base, lora, adapter_name=name)
            else:
                self._peft.add_adapter(name, lora)
        for parameter in self.adapter_parameters(name):
            parameter.data = parameter.data.float()
        skip_input_casts(self._base)
        if start is not None and has_adapter(start):
            self.load_saved(name, start)

    def add_whole(
        self, name: str, start: Path | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        """Add a copy of all weights, which goes by a name like an adapter.

        Args:
            name: What ``use`` calls it.
            start: Folder of saved weights, or of an adapter that is folded in, or of the bare base.
            dtype: Of the copy.

        Raises:
            UserError: If there are no weights that could be copied, or the saved ones don't fit.
        """
        if self.config.quantization is not Quantization.none or self.sharded:
            raise UserError(
                "a quantised or sharded base has no place for all weights of another model: set "
                "model.quantization=none and hardware.strategy=ddp"
            )
        self._wholes.add(name, dtype)
        if start is not None and has_whole(start):
            self.load_saved(name, start)
        elif start is not None and has_adapter(start):
            adapter = f"{name}_start"
            self.add_adapter(adapter, 0, start)
            for layer, own in adapted_weights(self._base, adapter):
                weight = self._wholes.counterpart(name, own)
                weight.data += layer.get_delta_weight(adapter).to(dtype)

    def lora_config(self, task: TaskType) -> LoraConfig:
        """Describe this model's adapters to peft."""
        return lora_config(self.config.lora, self._shared.targets, task)

    def load_saved(self, name: str, folder: Path) -> None:
        """Overwrite an adapter's weights by saved ones; a head saved with them is left aside.

        Raises:
            UserError: If the saved adapter does not fit this base.
        """
        if whole := self._wholes.get(name):
            if not fill(whole, folder):
                raise UserError(f"the weights in {folder} do not fit model={self.config.name}")
            return
        state = load_file(folder / ADAPTER_FILE)
        lora = {key: value for key, value in state.items() if "lora_" in key}
        shapes = {key: value.shape for key, value in lora.items()}
        if shapes != {key: value.shape for key, value in self.adapter_state(name).items()}:
            raise UserError(
                f"a saved adapter does not fit model={self.config.name}: it was made for another "
                "model, another model.lora.rank or other model.lora.targets"
            )
        set_peft_model_state_dict(self._peft, lora, adapter_name=name)

    def adapter_state(self, name: str) -> dict[str, torch.Tensor]:
        """Return an adapter's weights under the names that peft saves them by."""
        state: dict[str, torch.Tensor] = get_peft_model_state_dict(self._peft, adapter_name=name)
        return {key: value.detach().cpu().contiguous() for key, value in state.items()}

    def adapter_parameters(self, name: str) -> list[nn.Parameter]:
        """Return an adapter's weights in a fixed order, trainable or not."""
        marker = f".{name}."
        return [p for key, p in self.network.named_parameters() if "lora_" in key and marker in key]

    def weights_of(self, name: str) -> list[nn.Parameter]:
        """Return what is trained under a name: an adapter's weights, or all weights of a copy."""
        whole = self._wholes.get(name)
        return list(whole.values()) if whole else self.adapter_parameters(name)

    def whole(self, name: str) -> Weights | None:
        """Return the copy of all weights that goes by a name; ``None`` for an adapter."""
        return self._wholes.get(name)

    @contextmanager
    def use(self, name: str | None) -> Iterator[PreTrainedModel]:
        """Activate an adapter (``None``: the bare base) for a block and yield the network.

        Which adapters train is not touched: see ``train_only``.
        """
        adapter = None if self._wholes.get(name) else name
        with self._wholes.in_place(name), self._use_adapter(adapter) as network:
            yield network

    @contextmanager
    def _use_adapter(self, name: str | None) -> Iterator[PreTrainedModel]:
        if self._peft is None:
            if name is not None:
                raise KeyError(name)
            yield self.network
            return
        trained = [p.requires_grad for p in self._lora_parameters()]
        if name is None:
            try:
                with self._peft.disable_adapter():
                    yield self.network
            finally:
                self._set_trained(trained)
            return
        before = self._peft.active_adapter
        self._activate(name, trained)
        try:
            yield self.network
        finally:
            self._activate(before, trained)

    @contextmanager
    def sampling(self, name: str | None) -> Iterator[PreTrainedModel]:
        """Activate an adapter for a block in which nothing is trained, folded in where possible.

        A dense base takes the adapter into its own weights, W + BA alpha/r, which saves a third of
        the time of sampling, and gets its exact old weights back afterwards. A quantised base
        would lose precision by that, so there the adapter stays beside it.
        """
        quantised = self.config.quantization is not Quantization.none
        if name is None or self._wholes.get(name) or quantised or self.sharded:
            with self.use(name) as network:
                yield network
            return
        with self.use(None) as network:
            adapted = list(adapted_weights(self._base, name))
            before = [weight.data for _, weight in adapted]
            for layer, weight in adapted:
                delta = layer.get_delta_weight(name)
                weight.data = (weight.float() + delta.float()).to(weight.dtype)
            try:
                yield network
            finally:
                for (_, weight), data in zip(adapted, before, strict=True):
                    weight.data = data

    def train_only(self, *names: str) -> list[nn.Parameter]:
        """Let gradients reach what goes by these names and nothing else; return the weights."""
        for parameter in [*self._lora_parameters(), *self._wholes.parameters()]:
            parameter.requires_grad_(False)
        chosen = [p for name in names for p in self.weights_of(name)]
        for parameter in chosen:
            parameter.requires_grad_(True)
        return chosen

    def train_whole(self) -> list[nn.Parameter]:
        """Let gradients reach all weights of a base without adapters; return those of the body."""
        body = list(self._base.base_model.parameters())
        for parameter in body:
            parameter.requires_grad_(True)
        return body

    def load_whole(self, state: dict[str, torch.Tensor]) -> None:
        """Overwrite the body's weights; the language-model head stays as it is."""
        prefix = f"{self._base.base_model_prefix}."
        body = {key.removeprefix(prefix): value for key, value in state.items()}
        self._base.base_model.load_state_dict(body)

    def _lora_parameters(self) -> list[nn.Parameter]:
        return [p for key, p in self.network.named_parameters() if "lora_" in key]

    def _activate(self, name: Any, trained: list[bool]) -> None:
        assert self._peft is not None
        self._peft.set_adapter(name)
        self._set_trained(trained)

    def _set_trained(self, trained: list[bool]) -> None:
        """Undo what peft decides about training whenever adapters are switched on or off."""
        for parameter, flag in zip(self._lora_parameters(), trained, strict=True):
            parameter.requires_grad_(flag)


def has_adapter(folder: Path) -> bool:
    """Tell whether a model folder holds an adapter."""
    return (folder / ADAPTER_FILE).exists()


def is_tuned(folder: Path) -> bool:
    """Tell whether a model folder holds weights of its own; one without is the bare base."""
    return has_adapter(folder) or has_whole(folder)
