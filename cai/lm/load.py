"""Loading a base with its tokenizer; the one that was loaded last is kept for the next stage."""

from __future__ import annotations

import gc
import hashlib
import logging
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cai import parallel
from cai.config import HardwareConfig, ModelConfig, ModelSource, Quantization
from cai.config.content import nodes_in
from cai.errors import UserError
from cai.lm.adapters import coverage, describe, find_targets
from cai.lm.attention import use_cpu_attention
from cai.lm.backbone import compile_blocks
from cai.lm.base import Base
from cai.lm.chat import ChatFormat, ChatOptions
from cai.lm.checks import check_length, check_reading, check_tokenizer, n_embeddings
from cai.lm.device import set_threads, torch_device
from cai.lm.language_model import LanguageModel, has_adapter, is_tuned
from cai.lm.pretrained import (
    DTYPES,
    blamed_on,
    generation_of,
    load_pretrained,
    load_tokenizer,
    outline,
)
from cai.lm.shard import is_sharded, shard
from cai.lm.tiny import tiny_model, tiny_tokenizer

__all__ = [
    "LanguageModel",
    "has_adapter",
    "is_tuned",
    "load_chat",
    "load_copy",
    "load_model",
    "load_unweighted",
]

log = logging.getLogger(__name__)


@dataclass
class _Kept:
    """The base that was loaded last, for which settings, and who stands on it."""

    key: str
    base: Base
    holder: weakref.ref[LanguageModel]


UNFIT = "has a tokenizer that can't be used: {}"
_kept: list[_Kept] = []
"""At most one: another model makes room for itself first."""
_chats: dict[str, ChatFormat] = {}
MOST_CHATS = 3
"""Formats that are kept: one per role that a model may have."""


def load_model(config: ModelConfig, hardware: HardwareConfig) -> LanguageModel:
    """Load the base and its tokenizer, or take the base of an earlier call that is free again.

    What was put on it is taken off. While somebody still has it, another copy is loaded.

    Raises:
        UserError: If they can't be had, with what to do about it.
    """
    set_threads(hardware, config.source)
    key = _key(config, hardware)
    if _kept and _kept[0].key == key:
        if _kept[0].holder() is not None:
            gc.collect()
        if _kept[0].holder() is None:
            base = _kept[0].base
            base.strip()
            return _keep(key, LanguageModel(base, config, hardware), base)
    _kept.clear()
    parallel.keep_in_step(None)
    base = _load(config, hardware)
    return _keep(key, LanguageModel(base, config, hardware), base)


def load_copy(config: ModelConfig, hardware: HardwareConfig) -> LanguageModel:
    """Load a base of one's own, whose weights may be trained."""
    return LanguageModel(_load(config, hardware), config, hardware)


def load_unweighted(config: ModelConfig, hardware: HardwareConfig) -> LanguageModel:
    """Describe a base without its weights: its layers, how it speaks and when a reply ends.

    Raises:
        UserError: If its config or tokenizer can't be had.
    """
    if config.source is ModelSource.tiny:
        return load_copy(config, hardware)
    network = outline(config)
    network.generation_config = generation_of(config) or network.generation_config
    options = _chat_options(config, network)
    chat = ChatFormat(load_tokenizer(config), config.dialect, config.context, options)
    return LanguageModel(Base(network, chat, find_targets(network, config.lora)), config, hardware)


def load_chat(config: ModelConfig) -> ChatFormat:
    """Load how a model writes dialogues, without its weights; it can't tell when a reply ends.

    Raises:
        UserError: If its tokenizer can't be had, or its template not be used.
    """
    key = repr((config, _files(config)))
    if key not in _chats:
        while len(_chats) >= MOST_CHATS:
            del _chats[next(iter(_chats))]
        tiny = config.source is ModelSource.tiny
        tokenizer = tiny_tokenizer() if tiny else load_tokenizer(config)
        options = ChatOptions(template=config.template_options)
        with blamed_on(config.path, UNFIT):
            _chats[key] = ChatFormat(tokenizer, config.dialect, config.context, options)
    return _chats[key]


def template_marks(settings: object) -> dict[str, str]:
    """Digest how the models in some settings write a dialogue: equal weights may be told otherwise.

    Raises:
        UserError: If a tokenizer can't be had, or its template not be used.
    """
    return {
        f"{key}.template": hashlib.sha256(load_chat(model).probe.encode()).hexdigest()
        for key, model in nodes_in(settings, ModelConfig)
    }


def _keep(key: str, model: LanguageModel, base: Base) -> LanguageModel:
    _kept[:] = [_Kept(key, base, weakref.ref(model))]
    return model


def _key(config: ModelConfig, hardware: HardwareConfig) -> str:
    """Name what a base depends on; a folder may change while a process lives."""
    return repr((config, hardware, is_sharded(hardware), _files(config)))


def _files(config: ModelConfig) -> list[tuple[str, int, int]]:
    """List the files of a model's folder, with what changes when they do."""
    if config.source is not ModelSource.folder:
        return []
    found = sorted(path for path in Path(config.path).rglob("*") if path.is_file())
    return [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in found]


def _load(config: ModelConfig, hardware: HardwareConfig) -> Base:
    if is_sharded(hardware) and config.quantization is not Quantization.none:
        raise UserError(
            f"model.quantization={config.quantization.value} can't be sharded: use hardware=ddp, "
            "where every device has the small base, or model.quantization=none"
        )
    if config.source is ModelSource.tiny:
        if config.quantization is not Quantization.none:
            raise UserError("model.quantization needs saved weights: model=tiny has none")
        tokenizer: PreTrainedTokenizerBase = tiny_tokenizer()
        network: PreTrainedModel = tiny_model(config.context)
        cast(nn.Module, network).to(DTYPES[config.dtype])
    else:
        tokenizer, network = load_pretrained(config, torch_device(hardware))
    with blamed_on(config.path, UNFIT):
        check_tokenizer(network, tokenizer)
        check_length(network, config)
        chat = ChatFormat(tokenizer, config.dialect, config.context, _chat_options(config, network))
    _place(network, config, hardware)
    targets = find_targets(network, config.lora)
    if config.source in {ModelSource.hub, ModelSource.folder}:
        check_reading(network)
        log.info("model: %s", describe(coverage(network, targets), config.lora))
    if hardware.compile:
        compile_blocks(network)  # not before it was read with a cache above
    return Base(network, chat, targets)


def _place(network: PreTrainedModel, config: ModelConfig, hardware: HardwareConfig) -> None:
    """Put a base on its device, or a part of it on each."""
    device = torch_device(hardware)
    network.eval()
    if is_sharded(hardware):
        shard(network, device)
    if config.quantization is Quantization.none:
        cast(nn.Module, network).to(device)
    use_cpu_attention(network)
    if hardware.activation_checkpointing:
        network.gradient_checkpointing_enable({"use_reentrant": False})


def _chat_options(config: ModelConfig, network: PreTrainedModel) -> ChatOptions:
    """Read what ends a reply off the model's generation config."""
    ends = getattr(network.generation_config, "eos_token_id", None)
    known = [end for end in (ends if isinstance(ends, list) else [ends]) if end is not None]
    if not all(isinstance(end, int) for end in known):
        raise UserError("the model's generation config names an end of replies that is no id")
    size = n_embeddings(network)
    if not all(0 <= end < size for end in known):
        raise UserError(
            f"the model's generation config ends replies with the ids {sorted(known)}, and it has "
            f"{size} embeddings: correct eos_token_id in its generation_config.json"
        )
    return ChatOptions(frozenset(known), config.template_options)
