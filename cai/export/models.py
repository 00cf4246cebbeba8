"""An assistant or a preference model as a folder that needs nothing of this project."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from cai.config import Dtype, HardwareConfig, ModelSource, Quantization
from cai.errors import UserError
from cai.export.lineage import check_unchanged
from cai.export.systems import System
from cai.files import read_json, write_json
from cai.lm.alone import generation_alone, tokenizer_alone
from cai.lm.chat import ChatFormat
from cai.lm.heads import load_head, load_scalar_model, save_classifier
from cai.lm.language_model import ADAPTER_FILE, LanguageModel, has_adapter, is_tuned
from cai.lm.load import load_copy, load_unweighted
from cai.lm.pretrained import DTYPES
from cai.lm.usage import has_classifier, padded_tokenizer
from cai.lm.whole import Weights, save_whole

BASE = "base"
"""Folder of the base beside an adapter, where the base is in no hub."""
ADAPTER_CONFIG = "adapter_config.json"
MERGED = "merged"
"""What the weights with the adapter in them are called while they are made."""
SHIPPED = frozenset({ModelSource.embedded, ModelSource.tiny})
"""Bases that no other program finds."""


@dataclass(frozen=True)
class Form:
    """In which form a model is taken away.

    Attributes:
        merged: All weights, the adapter folded in; else the adapter alone.
        dtype: Of the merged weights.
    """

    merged: bool
    dtype: Dtype = Dtype.fp32


def write_model(
    system: System, form: Form, hardware: HardwareConfig, out: Path, final: Path
) -> LanguageModel:
    """Write weights, tokenizer, chat template and generation config.

    Args:
        system: Which model.
        form: How.
        hardware: Where it is done.
        out: An empty folder.
        final: What its path will be.

    Returns:
        The base, perhaps without weights, for the card to be written.

    Raises:
        UserError: If this model can't be had in this form.
    """
    _check(system, form)
    check_unchanged(system.result, system.folder)
    if form.merged:
        model = load_copy(system.base, hardware)
        if system.scores:
            _write_classifier(system, form, model, out)
        else:
            _write_assistant(system, form, model, out)
    else:
        model = load_unweighted(system.base, hardware)
        _write_adapter(system, hardware, out, final)
    _write_speech(system, model.chat, out)
    return model


def _check(system: System, form: Form) -> None:
    """Refuse what would be another model than the one that was trained."""
    quantization = system.base.quantization
    if form.merged and quantization is not Quantization.none:
        raise UserError(
            f"--merged can't be done on a base in {quantization.value}: the adapter was trained on "
            "the rounded weights, so folded into the exact ones it is another model, and rounded "
            "again its changes are lost; use --adapter"
        )
    if not form.merged and not has_adapter(system.folder):
        what = "has all its weights trained" if is_tuned(system.folder) else "is the bare base"
        raise UserError(f"{system.name} {what} and no adapter: use --merged")


def _write_assistant(system: System, form: Form, model: LanguageModel, out: Path) -> None:
    weights = _folded(system, form, model)
    save_whole(model.network, model.chat.tokenizer, weights, out)


def _write_classifier(system: System, form: Form, model: LanguageModel, out: Path) -> None:
    if not has_classifier(model.network):
        raise UserError(
            f"transformers has no sequence classifier for {type(model.network).__name__}, so "
            f"{system.name} can't be taken away: score with python -m cai.score --pm "
            f"{system.folder}"
        )
    dtype = DTYPES[form.dtype]
    head = load_head(system.folder, model.hidden_size).to(dtype)
    if has_adapter(system.folder):
        prefix = f"{model.network.base_model_prefix}."
        weights = _folded(system, form, model)
        body = {key: weight for key, weight in weights.items() if key.startswith(prefix)}
    else:
        own = load_scalar_model(model, MERGED, system.folder, model.hardware).model.network
        state = own.base_model.state_dict(prefix=f"{own.base_model_prefix}.")
        body = {key: weight.to(dtype) for key, weight in state.items()}
    save_classifier(model, body, head, out)


def _folded(system: System, form: Form, model: LanguageModel) -> Weights:
    """Return all weights with the adapter in them; the sum is made in float32."""
    model.add_whole(MERGED, system.folder, torch.float32)
    weights = model.whole(MERGED)
    assert weights is not None
    return {
        key: nn.Parameter(weight.to(DTYPES[form.dtype]), requires_grad=False)
        for key, weight in weights.items()
    }


def _write_adapter(system: System, hardware: HardwareConfig, out: Path, final: Path) -> None:
    """Copy an adapter and let it name a base that can be found."""
    shutil.copyfile(system.folder / ADAPTER_FILE, out / ADAPTER_FILE)
    config: dict[str, Any] = read_json(system.folder / ADAPTER_CONFIG)
    base = system.base
    if base.source in SHIPPED:
        dense = load_copy(replace(base, quantization=Quantization.none), hardware)
        dense.network.save_pretrained(out / BASE)
        _write_speech(system, dense.chat, out / BASE)
        config["base_model_name_or_path"] = str(final.resolve() / BASE)
    elif base.source is ModelSource.folder:
        config["base_model_name_or_path"] = str(Path(base.path).resolve())
    else:
        config["base_model_name_or_path"], config["revision"] = base.path, base.revision
    write_json(out / ADAPTER_CONFIG, config)


def _write_speech(system: System, chat: ChatFormat, folder: Path) -> None:
    """Write tokenizer, chat template, and when a reply ends."""
    tokenizer: PreTrainedTokenizerBase = tokenizer_alone(chat)
    if system.scores:
        padded_tokenizer(tokenizer, chat)
    else:
        generation_alone(chat, system.base.temperature).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
