"""The first questions to a server: what it takes, what it gives, and whether its model thinks."""

from __future__ import annotations

import logging
import re
from dataclasses import replace

from cai.constitution.prompts import ANSWER_OPENING, Question, as_request
from cai.dialogue import human
from cai.errors import UserError
from cai.labelling.choice_reading import read_choice
from cai.labelling.endpoint import Endpoint, Refused, Request
from cai.labelling.reply import ServerReply
from cai.labelling.server_profile import MOST_RIVALS, give_way
from cai.terminal import one_line

log = logging.getLogger(__name__)

ANSWER_TOKENS = 12
"""Room for "The answer is: (A)" in any tokenizer, and not for an essay."""
EXACT = {
    "max_tokens": ANSWER_TOKENS,
    "temperature": 0.0,
    "logprobs": True,
    "top_logprobs": MOST_RIVALS,
}
SAMPLES = 4
"""Samples that are compared to see whether a server samples."""
THINKING_OFF = (
    {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}},
    {"reasoning_effort": "none"},
    {"reasoning_effort": "minimal"},
    {"thinking": {"type": "disabled"}},
    {"enable_thinking": False},
)
"""Ways to switch thoughts off: chat templates behind vLLM, SGLang and llama.cpp; OpenAI and Ollama;
older models of OpenAI; DeepSeek, GLM and Kimi; Qwen's own service."""
THINKING_TOKENS = (1024, 4096)
"""Tokens for thoughts that can't be switched off; the first number that suffices is kept."""
_CHOICE = Question(
    (human("Which of these is a fruit?\nOptions:\n (A) [[[an apple]]]\n (B) [[[a stone]]]"),),
    ANSWER_OPENING,
)
_RANDOM = (human("Write a random number of nine digits."),)
_CONCESSIONS = 8
_CUT_OFF = re.compile(r"output limit|higher max_(?:completion_)?tokens", re.IGNORECASE)
"""OpenAI refuses a reply that was cut while the model thought."""


def gives_logprobs(endpoint: Endpoint) -> bool:
    """Ask a choice as exactly as can be, until it is answered.

    Afterwards the endpoint's profile says how its server wants to be asked.

    Raises:
        UserError: If it answers nothing, or thinks without end.
    """
    request = Request(as_request(_CHOICE), EXACT)
    reply = _agree(endpoint, request)
    if not _answers(reply) and (reply.thought or not reply.finished):
        reply = _without_thoughts(endpoint, request, reply)
    if not _answers(reply):
        said = one_line(reply.text, 60)
        log.warning("%s does not answer the first choice: %r", endpoint.settings.url, said)
    return reply.places is not None


def check_sampling(endpoint: Endpoint) -> None:
    """Find out how a server takes samples; warn if those of what should be random are all alike.

    Some servers take the likeliest token at any temperature, and votes then say only 0 or 1.

    Raises:
        UserError: If it refuses.
    """
    tries = [Request(_RANDOM, sampled(ANSWER_TOKENS, 1.0, n)) for n in range(SAMPLES)]
    _agree(endpoint, tries[0])
    replies = endpoint.ask_all(tries)
    if len({reply.text for reply in replies if reply}) == 1:
        log.warning(
            "%s gave the same reply to %d samples at temperature 1: it may not sample, and then "
            "votes and chains are all alike; with transformers serve, set do_sample to true in "
            "the model's generation_config.json",
            endpoint.settings.url,
            SAMPLES,
        )


def sampled(tokens: int, temperature: float, seed: int) -> dict[str, float]:
    """Ask for a sample of the model's own distribution; every server takes 31 bits of seed."""
    short = seed & 0x7FFF_FFFF
    return {"max_tokens": tokens, "temperature": temperature, "top_p": 1.0, "seed": short}


def _agree(endpoint: Endpoint, request: Request) -> ServerReply:
    """Ask, and give way to what the server says that it does not take."""
    for _ in range(_CONCESSIONS):
        try:
            return endpoint.ask(request)
        except Refused as refusal:
            words = refusal.words
        if _CUT_OFF.search(words):
            return ServerReply("", False, None, thought=True)
        given = give_way(endpoint.profile, words, endpoint.profile.fit(request.options))
        if given is None:
            break
        log.warning("%s (%s): %s", endpoint.settings.url, one_line(words), given.said)
        endpoint.profile = given.profile
    raise endpoint.refused(one_line(words))


def _without_thoughts(endpoint: Endpoint, request: Request, first: ServerReply) -> ServerReply:
    """Switch thoughts off, or leave room for them; a model that only rambles stays as it is."""
    plain, url, node = endpoint.profile, endpoint.settings.url, endpoint.settings.node
    for extra in THINKING_OFF:
        endpoint.profile = replace(plain, extra=extra)
        reply = _try(endpoint, request)
        if reply and _answers(reply):
            log.info("%s thinks before it answers, and is kept from it by %s", url, extra)
            return reply
    thought = first.thought
    for tokens in THINKING_TOKENS:
        endpoint.profile = replace(plain, thinking=tokens)
        reply = _try(endpoint, request)
        if reply and _answers(reply):
            log.warning(
                "%s thinks before it answers, and nothing that we know keeps it from that: every "
                "reply may cost %d tokens more (the first took %d in all)",
                url,
                tokens,
                reply.tokens,
            )
            return reply
        thought |= reply is not None and reply.thought
    if thought:
        raise UserError(
            f"{node}.url={url} thinks and, with {THINKING_TOKENS[-1]} tokens for that, does not "
            f"answer: serve {node}.model={endpoint.settings.model} "
            "without thinking, or choose another model"
        )
    endpoint.profile = plain
    return first


def _try(endpoint: Endpoint, request: Request) -> ServerReply | None:
    try:
        return endpoint.ask(request)
    except Refused:
        return None


def _answers(reply: ServerReply) -> bool:
    return read_choice(reply.text) is not None
