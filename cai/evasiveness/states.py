"""What the lower layers of a base hold of a reply, as five averages over its tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from cai.config import Dialect
from cai.dialogue import human
from cai.evasiveness.text import Exchange, clean_reply, last_request
from cai.lm.backbone import n_layers
from cai.lm.chat import ChatFormat
from cai.lm.load import LanguageModel
from cai.lm.packing import Tree, batches_of, hidden_states, pack

_CHARACTERS_A_TOKEN = 12  # more than any English text needs: bounds what is tokenised


@dataclass(frozen=True)
class Reach:
    """How much of a base and of a text is read.

    Attributes:
        layers: The lowest layers, of all that the base has.
        request_tokens: The last ones of the request, the assistant's marker included.
        reply_tokens: The first ones of the reply, the stop token included.
        opening_tokens: As many of these open the reply.
    """

    layers: int
    request_tokens: int
    reply_tokens: int
    opening_tokens: int


VIEWS = ("reply", "opening", "rest", "last", "request")
"""What is averaged: the reply, its opening, what follows (all of a reply that has no more), its
last token, and the request. A reply often takes a turn ("... but"), and what it does with a request
is a matter of both."""


def exchange_tree(chat: ChatFormat, reach: Reach, exchange: Exchange) -> Tree:
    """Encode the end of the last request and the beginning of the reply, as plain text.

    A chat template would spend half of the tokens on what is the same for all replies.
    """
    text = ChatFormat(chat.tokenizer, Dialect.text, chat.context)
    request = last_request(exchange[0])[-reach.request_tokens * _CHARACTERS_A_TOKEN :]
    reply = clean_reply(exchange[1])[: reach.reply_tokens * _CHARACTERS_A_TOKEN]
    before = text.prompt((human(request),))[-reach.request_tokens :]
    return Tree(before, [text.response(reply)[: reach.reply_tokens]])


@torch.inference_mode()
def reply_states(
    model: LanguageModel, reach: Reach, exchanges: Sequence[Exchange], max_tokens: int
) -> Tensor:
    """Run the lowest layers of the bare base and average over parts of the text.

    Args:
        model: Its adapters play no part.
        reach: How much is read.
        exchanges: N prompts and replies.
        max_tokens: Padded tokens in one forward pass.

    Returns:
        [N, V, H], in the order of ``VIEWS``; float32, on the processor.
    """
    trees = [exchange_tree(model.chat, reach, exchange) for exchange in exchanges]
    found = torch.empty(len(trees), len(VIEWS), model.hidden_size)
    with model.use(None) as network, lowest_layers(network, reach.layers):
        for group in batches_of(trees, max_tokens):
            batch = [trees[i] for i in group]
            packed = pack(batch).to(model.device)
            states = hidden_states(network, packed).float()
            shares = _shares(batch, reach, states.shape[1]).to(states.device)
            found[group] = (shares @ states).cpu()
    return found


def _shares(trees: Sequence[Tree], reach: Reach, width: int) -> Tensor:
    """Return what each token counts in each view of its row, [B, V, S]; a view's sum to 1."""
    shares = torch.zeros(len(trees), len(VIEWS), width)
    for row, tree in enumerate(trees):
        start = len(tree.prompt)
        end = tree.length
        turn = start + reach.opening_tokens
        rest = (turn, end) if turn < end else (start, end)
        spans = ((start, end), (start, min(turn, end)), rest, (end - 1, end), (0, start))
        for view, (first, stop) in enumerate(spans):
            shares[row, view, first:stop] = 1 / (stop - first)
    return shares


@contextmanager
def lowest_layers(network: PreTrainedModel, count: int) -> Iterator[None]:
    """Let a network stop after its lowest layers for a block; its final norm follows them."""
    body = network.base_model
    layers = cast(nn.ModuleList, body.layers)
    if count > n_layers(network):
        raise ValueError(f"the network has {n_layers(network)} layers, fewer than {count}")
    body.layers = layers[:count]
    try:
        yield
    finally:
        body.layers = layers
