"""What is looked at before a model is used, so that a fault is one sentence and not a wrong number.

A model that passes reads the same through packed rows and a cache as by its own forward pass.
"""

from __future__ import annotations

import inspect
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from cai.config import ModelConfig
from cai.errors import UserError
from cai.lm.backbone import (
    FULL,
    SLIDING,
    layer_kinds,
    n_layers,
    n_positions,
    read_logits,
    run_backbone,
    text_config,
)
from cai.lm.cache import PrefixCache, SlotCache
from cai.lm.packing import Tree, hidden_states, pack, read_prefix

SHOWN = 3
"""Names of weights in a message."""
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""Mean difference of log-probabilities, in nats, that rounding may make."""


LARGEST = {
    "num_hidden_layers": 10_000,
    "hidden_size": 10**6,
    "intermediate_size": 10**7,
    "num_attention_heads": 10**5,
    "vocab_size": 10**8,
}
"""Sizes that no model has; to build one takes for ever."""


def check_architecture(config: PreTrainedConfig) -> None:
    """Refuse what is no causal language model of text, from its config alone.

    Raises:
        UserError: Says what it is instead.
    """
    name = (config.architectures or [config.model_type])[0]
    attention = str(getattr(config, "_attn_implementation", None))
    if "/" in attention:
        raise UserError(
            f"{name} asks for code from elsewhere to attend with ({attention}), which is not run: "
            "take _attn_implementation out of its config.json"
        )
    for key, most in LARGEST.items():
        size = getattr(config, key, 1)
        if isinstance(size, int) and not 1 <= size <= most:
            raise UserError(f"{key} of its config.json is {size}: it must be from 1 to {most}")
    if config.is_encoder_decoder:
        raise UserError(f"{name} has an encoder and a decoder: use a causal language model")
    if config.get_text_config() is not config:
        raise UserError(
            f"{name} reads more than text: use the text model of its family, saved by itself"
        )


def check_weights(network: PreTrainedModel, report: dict[str, Any], where: str) -> None:
    """Refuse weights that are absent, left over, not finite or tied in the config alone.

    Args:
        network: As it was loaded.
        report: What transformers says about the loading.
        where: Names the model in a message.

    Raises:
        UserError: Names the first weights that are wrong.
    """
    faults = {
        "lacks weights": report.get("missing_keys"),
        "has weights that its config has no place for": report.get("unexpected_keys"),
        "has weights of another shape than its config says": report.get("mismatched_keys"),
    }
    for fault, found in faults.items():
        if found:
            raise UserError(
                f"{where} {fault} ({_named(found)}): save it again with save_pretrained"
            )
    spoilt = [
        name
        for name, parameter in network.named_parameters()
        if parameter.is_floating_point() and not bool(torch.isfinite(parameter).all())
    ]
    if spoilt:
        raise UserError(
            f"{where} has weights that are not finite numbers ({_named(spoilt)}): get it again"
        )
    head, embeddings = network.get_output_embeddings(), network.get_input_embeddings()
    if (
        network.config.tie_word_embeddings
        and head is not None
        and head.weight is not (embeddings.weight)
    ):
        raise UserError(
            f"{where} holds an output head of its own, and its config ties it to the "
            "embeddings: set tie_word_embeddings to false in its config.json"
        )


def n_embeddings(network: PreTrainedModel) -> int:
    """Return how many ids a model knows."""
    return cast(nn.Embedding, network.get_input_embeddings()).num_embeddings


def check_tokenizer(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer whose ids reach beyond the embeddings.

    Raises:
        UserError: Gives both sizes.
    """
    embeddings = n_embeddings(network)
    highest = max(tokenizer.get_vocab().values(), default=0)
    if highest >= embeddings:
        raise UserError(
            f"the tokenizer has ids up to {highest}, and the model has {embeddings} embeddings: "
            "use the tokenizer that the model was trained with"
        )


def check_length(network: PreTrainedModel, config: ModelConfig) -> None:
    """Refuse a context beyond the model's positions.

    Raises:
        UserError: Gives the largest that is possible.
    """
    positions = n_positions(network)
    if positions is not None and config.context > positions:
        turned = "longrope" in str(getattr(text_config(network), "rope_parameters", ""))
        shared = " that rows of every length share" if turned else ""
        raise UserError(
            f"model.context={config.context} is more than the model has positions{shared}: use at "
            f"most {positions}"
        )


@torch.no_grad()
def check_reading(network: PreTrainedModel) -> None:
    """Refuse a model that reads otherwise here than by its own forward pass.

    Two replies to one prompt, in one row and token by token, against the model's own logits.

    Raises:
        UserError: If it has layers of an unknown kind, or differs by more than rounding.
    """
    kind = type(network).__name__
    unknown = sorted({*layer_kinds(network)} - {FULL, SLIDING})
    if unknown:
        raise UserError(
            f"{kind} has layers of the kind {', '.join(unknown)}, which can't be packed or "
            "sampled from here: use a model whose layers all attend to what came before"
        )
    if "position_ids" not in inspect.signature(network.base_model.forward).parameters:
        raise UserError(
            f"{kind} takes no position ids, so replies can't share a prompt: use a model with "
            "rotary or learnt positions"
        )
    try:
        gap = _reading_gap(network)
    except (RuntimeError, ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{kind} can't be read in packed rows ({reason}): use another model"
        ) from error
    if not gap <= TOLERANCE.get(network.dtype, 0.1):
        raise UserError(
            f"{kind} gives other probabilities in packed rows than by itself (by {gap:.2g} nats): "
            "use another model"
        )


def _reading_gap(network: PreTrainedModel) -> float:
    """Return the mean difference of log-probabilities between our readings and the model's own."""
    size = n_embeddings(network)
    prompt = [i * 7919 % size for i in range(1, 8)]
    replies = [[i * 104729 % size for i in range(k, k + 4)] for k in (1, 5)]
    packed = pack([Tree(prompt, replies)]).to(network.device)
    rows = torch.tensor([[*prompt, *reply] for reply in replies], device=network.device)
    own = network(input_ids=rows).logits.float().log_softmax(-1)
    hidden = hidden_states(network, packed)[packed.row, packed.before]
    read = read_logits(network, hidden).log_softmax(-1).unflatten(0, (2, 4))
    start = len(prompt) - 1
    gaps = [(read - own[:, start : start + 4]).abs().mean()]
    stepped = _step_by_step(network, rows).log_softmax(-1)
    gaps.append((stepped - own[:, start + 1 :]).abs().mean())
    return float(torch.stack(gaps).max())


def _step_by_step(network: PreTrainedModel, rows: Tensor) -> Tensor:
    """Read the prompt once and the replies token by token, as the sampler does: [2, 4, V]."""
    length = rows.shape[1] - 4
    cache = SlotCache(n_layers(network), 2, rows.shape[1])
    prefix = read_prefix(network, rows[0, : length - 1].tolist())
    last = PrefixCache(n_layers(network), prefix)
    trees = [Tree(rows[0, length - 1 : length].tolist(), ())] * 2
    hidden_states(network, pack(trees).to(network.device), last)
    cache.load(0, last)
    logits = []
    for place in range(length, rows.shape[1]):
        sight = cache.expect([place, place], network.device)
        hidden = run_backbone(
            network, rows[:, place : place + 1], cache.ends[:, None], sight, cache
        )
        logits.append(read_logits(network, hidden[:, -1]))
    return torch.stack(logits, 1)


def _named(names: Any) -> str:
    found = sorted(str(name) for name in names)
    rest = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ", ".join(found[:SHOWN]) + rest
