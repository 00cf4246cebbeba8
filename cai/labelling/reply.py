"""What a chat server replied, and which of two options the reply chooses."""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

from cai.constitution.prompts import OPTIONS

MOST_UNLISTED = 0.01
"""How far an option that is not among the listed tokens may move a probability."""

_OPENING = r"(?:(?:So )?[Tt]he (?:correct )?answer is|Answer|Option)?"
_FILLER = r"[\s*_:\"'`]*"
_CHOICE = re.compile(
    rf"{_FILLER}{_OPENING}{_FILLER}"
    rf"(?:\(([{''.join(OPTIONS)}])(?![A-Za-z])|([{''.join(OPTIONS)}])(?=[).,:;*_\"'`]|\s*$|\s*\n))"
)


class Token(NamedTuple):
    """A token's text and its log-probability."""

    text: str
    logprob: float


class Place(NamedTuple):
    """The token that was taken at a place in the reply, and those that could have been."""

    taken: Token
    candidates: tuple[Token, ...]


class Reply(NamedTuple):
    """A server's reply.

    Attributes:
        text: What it says; empty if it says nothing.
        finished: Whether it ended by itself.
        places: Its tokens with their rivals; None if the server gives no log-probabilities.
        tokens: Read and written for it; 0 if the server does not say.
    """

    text: str
    finished: bool
    places: tuple[Place, ...] | None
    tokens: int = 0


def parse_reply(value: Any) -> Reply:
    """Read a chat completion.

    Raises:
        ValueError: If it is something else.
    """
    try:
        choice = value["choices"][0]
        text = choice["message"].get("content")
        content = (choice.get("logprobs") or {}).get("content") or []
        places = tuple(_place(entry) for entry in content)
        finished = choice.get("finish_reason") == "stop"
        tokens = int((value.get("usage") or {}).get("total_tokens") or 0)
    except (KeyError, IndexError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError("not a chat completion") from error
    if not isinstance(text, str | None):
        raise ValueError("the content of a message must be text")
    listed = all(len(place.candidates) > 1 for place in places)
    return Reply(text or "", finished, places if places and listed else None, max(tokens, 0))


def to_row(reply: Reply) -> dict[str, Any]:
    """Write a reply as the chat completion that ``parse_reply`` reads."""
    content = [
        {**_to_entry(place.taken), "top_logprobs": [_to_entry(token) for token in place.candidates]}
        for place in reply.places or ()
    ]
    choice = {
        "message": {"role": "assistant", "content": reply.text},
        "finish_reason": "stop" if reply.finished else "length",
        "logprobs": {"content": content} if content else None,
    }
    return {"choices": [choice], "usage": {"total_tokens": reply.tokens}}


def read_choice(text: str, *, bare: bool = True) -> int | None:
    """Return the index of the option that a text begins with, None if it is not clear.

    Args:
        text: A reply or its beginning.
        bare: Whether a letter without a bracket before it will do.
    """
    found = _CHOICE.match(text)
    if found is None or (found.group(2) and not bare):
        return None
    chosen = OPTIONS.index(found.group(1) or found.group(2))
    return None if f"({OPTIONS[1 - chosen]})" in text else chosen


def first_option_probability(reply: Reply) -> float | None:
    r"""Return the probability of the first option, normalised over both.

    The reply is a path through a tree of tokens. Wherever it passes, the tokens beside it that
    would have named an option count as well, so that for each option k

    .. math:: m_k = \sum_i p(t_1 .. t_{i-1}) \sum_{c: t_1 .. t_{i-1} c \text{ names } k} p(c | ..)

    up to the place at which the reply has named one; the result is m_0 / (m_0 + m_1). It is exact
    if what comes after an option's name is certain. On the way there a letter counts only with a
    bracket before it, because a bare "A" may well begin a sentence.

    Args:
        reply: With its places.

    Returns:
        None if the reply as a whole names no option, or if one of the options is not among the
        listed tokens and could, as probable as the last listed one, be worth more than
        ``MOST_UNLISTED``.
    """
    if reply.places is None or read_choice(reply.text) is None:
        return None
    before, path, masses, unlisted = "", 0.0, [0.0, 0.0], 0.0
    for taken, candidates in reply.places:
        decided = read_choice(before + taken.text) is not None
        for token in candidates:
            chosen = read_choice(before + token.text, bare=decided)
            if chosen is not None:
                masses[chosen] += math.exp(path + token.logprob)
        if decided:
            unlisted = math.exp(path + min(token.logprob for token in candidates))
            break
        before, path = before + taken.text, path + taken.logprob
    total = sum(masses)
    if total == 0 or (0 in masses and unlisted > MOST_UNLISTED * total):
        return None
    return masses[0] / total


def _place(entry: Any) -> Place:
    taken = _token(entry)
    listed = tuple(_token(other) for other in entry.get("top_logprobs") or ())
    return Place(taken, listed if taken.text in {t.text for t in listed} else (*listed, taken))


def _token(entry: Any) -> Token:
    text, logprob = entry["token"], float(entry["logprob"])
    if not isinstance(text, str) or math.isnan(logprob):
        raise ValueError("a token needs a text and a log-probability")
    return Token(text, min(logprob, 0.0))


def _to_entry(token: Token) -> dict[str, Any]:
    return {"token": token.text, "logprob": token.logprob}
