"""Weights and tokenizers that others made: from the package index, a hub or a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from cai.config import Dtype, ModelConfig, ModelSource, Quantization
from cai.errors import UserError, is_out_of_memory
from cai.lm.checks import check_architecture, check_weights
from cai.lm.embedded import embedded_model
from cai.terminal import one_line

DTYPES = {Dtype.fp32: torch.float32, Dtype.bf16: torch.bfloat16}


def load_pretrained(
    config: ModelConfig, device: torch.device
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Load a tokenizer and a base, quantised if asked for; no code of theirs is run.

    Raises:
        UserError: If they can't be had, with what to do about it.
    """
    where = locate(config)
    return load_tokenizer(config), _load_network(config, where, device)


def outline(config: ModelConfig) -> PreTrainedModel:
    """Build a model without its weights, from its config alone.

    Raises:
        UserError: If that can't be had.
    """
    where = locate(config)
    with blamed_on(where):
        found = AutoConfig.from_pretrained(where, **_options(config))
        check_architecture(found)
        with torch.device("meta"):
            network: PreTrainedModel = AutoModelForCausalLM.from_config(found)
    return network


def generation_of(config: ModelConfig) -> GenerationConfig | None:
    """Read a model's generation config; None if it comes without one."""
    try:
        return GenerationConfig.from_pretrained(locate(config), revision=config.revision or "main")
    except OSError:
        return None


@contextmanager
def blamed_on(where: str, fault: str = "could not be loaded: {}") -> Iterator[None]:
    """Blame what a library stumbles over on the model that it reads; other people made that.

    Args:
        where: The model's path.
        fault: What to say, with room for the library's words.

    Raises:
        UserError: Of whatever is raised but a lack of memory.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        said = one_line(str(error)).rstrip(".") or type(error).__name__
        raise UserError(f"model.path={where!r} {fault.format(said)}") from error


def locate(config: ModelConfig) -> str:
    """Return the folder of a model, or its name on the hub.

    Raises:
        UserError: If there is no such folder, or no commit of the hub is given.
    """
    where = str(embedded_model()) if config.source is ModelSource.embedded else config.path
    if config.source is ModelSource.folder and not (Path(where) / "config.json").is_file():
        raise UserError(f"model.path={where!r} is not a model folder: it has no config.json")
    if config.source is ModelSource.hub and not config.revision:
        raise UserError(f"model.revision of {where} is missing: pin the commit to be reproducible")
    return where


def _options(config: ModelConfig) -> dict[str, Any]:
    return {"revision": config.revision or "main", "trust_remote_code": False}


def load_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a folder or the hub.

    Raises:
        UserError: If it can't be had.
    """
    where = locate(config)
    advice = "save one beside the model with tokenizer.save_pretrained"
    with blamed_on(where, f"has no tokenizer that can be read ({{}}): {advice}"):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            where, revision=config.revision or "main", trust_remote_code=False
        )
    return tokenizer


def _load_network(config: ModelConfig, where: str, device: torch.device) -> PreTrainedModel:
    options = _options(config)
    with blamed_on(where):
        check_architecture(AutoConfig.from_pretrained(where, **options))
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            where,
            use_safetensors=True,
            dtype=DTYPES[config.dtype],
            quantization_config=_quantization(config),
            device_map={"": device} if config.quantization is not Quantization.none else None,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # all faults are told in one place
            **options,
        )
    model: PreTrainedModel
    model, report = loaded
    check_weights(model, report, f"model.path={where!r}")
    if getattr(model.config.get_text_config(), "attn_logit_softcapping", None):
        model.set_attn_implementation("eager")  # the only one here that caps scores
    if config.quantization is Quantization.nf4:
        _keep_differentiable(model)
    return model


def _keep_differentiable(model: PreTrainedModel) -> None:
    """Stop bitsandbytes from repacking weights when a processor first reads without gradients.

    Its kernel for the repacked form has no backward pass, and later training would silently lose
    the gradients that flow through it (bitsandbytes 0.50).
    """
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def _quantization(config: ModelConfig) -> BitsAndBytesConfig | None:
    if config.quantization is Quantization.nf4:
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=DTYPES[config.dtype],
        )
    if config.quantization is Quantization.int8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return None
