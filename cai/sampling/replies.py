"""Replies of one adapter to prompts, as text and as tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cai.dialogue import Conversation
from cai.lm.generate import Completion, Sampling
from cai.lm.load import LanguageModel


@dataclass(frozen=True)
class SampledReply:
    """What an assistant said.

    ``logprob`` is that of all its tokens under the distribution that they were drawn from, in nats;
    at temperature 0, under the model's own.
    """

    text: str
    tokens: list[int]
    finished: bool
    logprob: float


def sample_replies(
    model: LanguageModel,
    adapter: str | None,
    conversations: Sequence[Conversation],
    seeds: Sequence[int],
    sampling: Sampling,
    *,
    opening: str = "",
) -> list[SampledReply]:
    """Sample one reply per conversation.

    Args:
        model: Holds the adapter.
        adapter: Who speaks; ``None`` is the bare base.
        conversations: Dialogues that wait for the assistant.
        seeds: One per conversation.
        sampling: Lengths and temperature.
        opening: How the assistant's turn begins.
    """
    prompts = [model.chat.prompt(conversation, opening) for conversation in conversations]
    completions = model.sampler.generate(adapter, prompts, seeds, sampling)
    return [_reply(model, completion) for completion in completions]


def _reply(model: LanguageModel, completion: Completion) -> SampledReply:
    text = model.chat.decode(completion.tokens)
    said = math.fsum(completion.logprobs)
    return SampledReply(text, completion.tokens, completion.finished, said)
