"""Scalar heads, and model folders that peft and transformers load without this project."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, cast

import torch
from peft import TaskType
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from cai.config import Dtype, HardwareConfig, ModelConfig
from cai.errors import UserError
from cai.files import filling, write_text
from cai.lm.language_model import ADAPTER_FILE, LanguageModel, has_adapter
from cai.lm.load import load_copy
from cai.lm.shard import is_sharded
from cai.lm.usage import has_classifier, padded_tokenizer
from cai.lm.whole import WHOLE_FILE, has_whole, save_whole

HEAD_KEY = "base_model.model.score.weight"
WHOLE_HEAD_KEY = "score.weight"


class ScalarHead(nn.Module):
    """One number from a hidden state: the score of a PM or the value of a critic."""

    def __init__(self, hidden_size: int, seed: int | None) -> None:
        """Draw the weights from ``seed``; without one they start at zero."""
        super().__init__()
        self.offset = 0.0  # taken off: a critic that starts as a PM starts at the PM's mean
        self.score = nn.Linear(hidden_size, 1, bias=False)
        nn.init.zeros_(self.score.weight)
        if seed is not None:
            generator = torch.Generator().manual_seed(seed)
            nn.init.normal_(self.score.weight, std=hidden_size**-0.5, generator=generator)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map hidden states [..., H] of any precision to float32 numbers [...]."""
        return cast(Tensor, self.score(hidden.float()).squeeze(-1) - self.offset)


class ScalarModel(NamedTuple):
    """A network and the scalar head on it.

    Attributes:
        model: The network; several may stand on one.
        adapter: The one that belongs to the head; ``None`` if the network itself was trained.
        head: Reads a hidden state.
    """

    model: LanguageModel
    adapter: str | None
    head: ScalarHead

    def train(self) -> dict[str, list[nn.Parameter]]:
        """Let gradients reach this model alone; return its weights by name."""
        if self.adapter is None:
            return {"network": self.model.train_whole(), "head": list(self.head.parameters())}
        body = self.model.train_only(self.adapter)
        return {self.adapter: body, "head": list(self.head.parameters())}

    def save(self, folder: Path) -> None:
        """Write a sequence classifier with one label: an adapter with its head, or all weights."""
        if self.adapter is None:
            _save_whole(self.model, self.head, folder)
        else:
            save_model(self.model, self.adapter, folder, self.head)

    def restore(self, folder: Path) -> None:
        """Overwrite all weights by those that ``save`` wrote."""
        if self.adapter is None:
            self.model.load_whole(_body(load_file(folder / WHOLE_FILE)))
        else:
            self.model.load_saved(self.adapter, folder)
        self.head.load_state_dict(load_head(folder, self.model.hidden_size).state_dict())


def own_network(config: ModelConfig, hardware: HardwareConfig) -> LanguageModel:
    """Load a copy of the base to train all its weights, in float32.

    Raises:
        UserError: If the base is quantised, or can't be saved as a classifier.
    """
    if is_sharded(hardware):
        raise UserError(
            "hardware.strategy=shard keeps the base frozen: set pm.full_finetuning=false or "
            "hardware.strategy=ddp"
        )
    config.check_trainable("pm.full_finetuning")
    model = load_copy(replace(config, dtype=Dtype.fp32), hardware)
    if not has_classifier(model.network):
        raise UserError(
            "pm.full_finetuning=true needs a sequence classifier, and transformers has none for "
            f"{type(model.network).__name__}: set pm.full_finetuning=false"
        )
    return model


def has_scalar_model(folder: Path) -> bool:
    """Tell whether a folder holds what ``ScalarModel.save`` wrote."""
    return has_adapter(folder) or has_whole(folder)


def load_scalar_model(
    model: LanguageModel, name: str, folder: Path, hardware: HardwareConfig
) -> ScalarModel:
    """Load a saved model with its head.

    Args:
        model: Takes its adapter, if it is one; else only tells which base is meant.
        name: For the adapter.
        folder: Written by ``ScalarModel.save``.
        hardware: Where a network of its own goes.
    """
    head = ScalarHead(model.hidden_size, None).to(model.device)
    if has_adapter(folder):
        model.add_adapter(name, 0)
        loaded = ScalarModel(model, name, head)
    else:
        loaded = ScalarModel(own_network(model.config, hardware), None, head)
    loaded.restore(folder)
    return loaded


def save_model(
    model: LanguageModel, name: str | None, folder: Path, head: ScalarHead | None = None
) -> None:
    """Save an adapter and the head that belongs to it, in peft's format, or all weights of a copy.

    Args:
        model: Holds it.
        name: What it is called; ``None`` writes a folder that stands for the bare base.
        folder: Where to; made if need be.
        head: Makes it a sequence classifier with one label.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if name is None:
        write_text(folder / "base.json", json.dumps({"base": model.config.name}) + "\n")
        return
    if (weights := model.whole(name)) is not None:
        save_whole(model.network, model.chat.tokenizer, weights, folder)
        return
    state = model.adapter_state(name)
    if head is not None:
        state[HEAD_KEY] = head.score.weight.detach().float().cpu().contiguous()
    lora = model.lora_config(TaskType.CAUSAL_LM if head is None else TaskType.SEQ_CLS)
    lora.base_model_name_or_path = model.config.path or model.config.name
    lora.modules_to_save = None if head is None else ["score"]
    lora.inference_mode = True
    if isinstance(lora.target_modules, set):  # whose order is another in every process
        lora.target_modules = sorted(lora.target_modules)
    with filling(folder) as scratch:
        save_file(state, scratch / ADAPTER_FILE, metadata={"format": "pt"})
        lora.save_pretrained(str(scratch))


def load_head(folder: Path, hidden_size: int) -> ScalarHead:
    """Load the head of a saved preference model or critic."""
    head = ScalarHead(hidden_size, seed=None)
    adapter = has_adapter(folder)
    file, key = (ADAPTER_FILE, HEAD_KEY) if adapter else (WHOLE_FILE, WHOLE_HEAD_KEY)
    head.score.weight.data.copy_(load_file(folder / file)[key])
    return head


def save_classifier(
    model: LanguageModel, body: Mapping[str, Tensor], head: ScalarHead, folder: Path
) -> None:
    """Write a model folder that transformers loads as a sequence classifier with one label.

    Args:
        model: Gives architecture and tokenizer.
        body: All weights below the language-model head, by name.
        head: Reads the last hidden state.
        folder: Where to.
    """
    network = model.network
    config = copy.deepcopy(network.config)
    tokenizer = copy.deepcopy(model.chat.tokenizer)
    config.num_labels, config.pad_token_id = 1, padded_tokenizer(tokenizer, model.chat)
    with torch.device("meta"):
        classifier: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
    state = {key: value.detach().cpu().contiguous() for key, value in body.items()}
    state[WHOLE_HEAD_KEY] = head.score.weight.detach().cpu().contiguous()
    classifier.load_state_dict(state, assign=True)
    with filling(folder) as scratch:
        classifier.save_pretrained(scratch, max_shard_size="1TB")
        tokenizer.save_pretrained(scratch)


def _save_whole(model: LanguageModel, head: ScalarHead, folder: Path) -> None:
    network = model.network
    body = network.base_model.state_dict(prefix=f"{network.base_model_prefix}.")
    save_classifier(model, body, head, folder)


def _body(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key != WHOLE_HEAD_KEY}
