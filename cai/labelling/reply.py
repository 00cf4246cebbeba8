"""What a chat server replied, in the several forms that servers give it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

MOST_TOKENS = 10**8
"""A server that counts more for one reply has not counted."""
THOUGHT_TAGS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("\u25c1think\u25b7", "\u25c1/think\u25b7"),
)
"""What models put around thoughts; a server that knows its model takes it out."""
_BLANKS = str.maketrans({"\u2581": " ", "\u0120": " ", "\u010a": "\n"})
"""Signs that SentencePiece and byte-level tokenizers put for blanks; some servers show them."""
_NOT_KEPT = "not kept"
_ALIGNMENTS = 64


class Token(NamedTuple):
    """A token's text and its log-probability."""

    text: str
    logprob: float


class Place(NamedTuple):
    """The token that was taken at a place in the reply, and those that could have been."""

    taken: Token
    candidates: tuple[Token, ...]


class ServerReply(NamedTuple):
    """A server's reply.

    Attributes:
        text: What it says, thoughts left out; empty if it says nothing.
        finished: Whether it ended by itself.
        places: The text's tokens with their rivals; None if the server gives no log-probabilities.
        tokens: Read and written for it; 0 if the server does not say.
        thought: Whether it thought before it answered.
    """

    text: str
    finished: bool
    places: tuple[Place, ...] | None
    tokens: int = 0
    thought: bool = False


class _Spoken(NamedTuple):
    """The text of a message, and whether there were thoughts before it."""

    text: str
    thought: bool


def parse_reply(value: Any) -> ServerReply:
    """Read a chat completion.

    Raises:
        ValueError: If it is something else.
    """
    try:
        choice, usage = value["choices"][0], value.get("usage") or {}
        spoken = _spoken(choice["message"])
        finish = choice.get("finish_reason")
        unseen = _count((usage.get("completion_tokens_details") or {}).get("reasoning_tokens")) > 0
        # Tokens that were spent on nothing were spent on thoughts that are not shown.
        unseen |= not spoken.text and finish == "length"
        spoken = spoken._replace(thought=spoken.thought or unseen)
        places = _answer(_places(choice.get("logprobs") or {}), spoken)
        tokens = _count(usage.get("total_tokens"))
    except (KeyError, IndexError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError("not a chat completion") from error
    # The older form lists no rivals where there are none worth it.
    listed = places and any(len(place.candidates) > 1 for place in places)
    return ServerReply(
        spoken.text, finish == "stop", places if listed else None, tokens, spoken.thought
    )


def to_row(reply: ServerReply) -> dict[str, Any]:
    """Write a reply as a chat completion that ``parse_reply`` reads as the same."""
    content = [
        {**_to_entry(place.taken), "top_logprobs": [_to_entry(token) for token in place.candidates]}
        for place in reply.places or ()
    ]
    message = {"role": "assistant", "content": reply.text}
    choice = {
        "message": message | ({"reasoning_content": _NOT_KEPT} if reply.thought else {}),
        "finish_reason": "stop" if reply.finished else "length",
        "logprobs": {"content": content} if content else None,
    }
    return {"choices": [choice], "usage": {"total_tokens": reply.tokens}}


def _spoken(message: Mapping[str, Any]) -> _Spoken:
    """Tell what a message says from what was thought before it."""
    content = message.get("content") or ""
    thoughts = [message.get("reasoning_content"), message.get("reasoning")]
    if isinstance(content, list):
        parts = [{"type": "text", "text": p} if isinstance(p, str) else p for p in content]
        thoughts += [part for part in parts if part.get("type") in {"thinking", "reasoning"}]
        content = "".join(p["text"] for p in parts if p.get("type") in {"text", "output_text"})
    if not isinstance(content, str):
        raise ValueError("the content of a message must be a text or a list of parts")
    aloud = _without_thoughts(_clean(content))
    apart = any(t.strip() if isinstance(t, str) else t for t in thoughts)
    return _Spoken(aloud.text, aloud.thought or apart)


def _without_thoughts(text: str) -> _Spoken:
    """Take thoughts out of a text; where the prompt opens them, only their end is in it."""
    start = text.lstrip()
    for opening, closing in THOUGHT_TAGS:
        opened = start.startswith(opening)
        if not opened and (closing not in text or opening in text):
            continue
        thought, closed, answer = start.removeprefix(opening).partition(closing)
        return _Spoken(answer.lstrip(), bool(thought.strip() or not closed))
    return _Spoken(text, False)


def _places(logprobs: Mapping[str, Any]) -> tuple[Place, ...]:
    """Read log-probabilities, also in the form of the older text completions."""
    if (tokens := logprobs.get("tokens")) is None:
        return tuple(_place(entry) for entry in logprobs.get("content") or ())
    listed = logprobs.get("top_logprobs") or [None] * len(tokens)
    return tuple(
        _place(
            {
                "token": token,
                "logprob": logprob,
                "top_logprobs": [{"token": t, "logprob": p} for t, p in (others or {}).items()],
            }
        )
        for token, logprob, others in zip(tokens, logprobs["token_logprobs"], listed, strict=True)
    )


def _answer(places: Sequence[Place], spoken: _Spoken) -> tuple[Place, ...] | None:
    """Return the places of the answer: log-probabilities are of what was thought as well.

    Where the tokens do not spell the text, they are taken to begin with it unless there were
    thoughts before it.
    """
    text, starts, said = spoken.text.strip(), {}, ""
    for n, place in enumerate(places):
        starts[len(said)] = n
        said += place.taken.text
    end = len(said) if text else 0
    for _ in range(_ALIGNMENTS):
        begin = said.rfind(text, 0, end)
        if begin < 0 or not text:
            break
        end = begin + len(text) - 1
        while begin not in starts and said[begin - 1].isspace():
            begin -= 1
        if (n := starts.get(begin, -1)) >= 0:
            while n > 0 and places[n - 1].taken.text.isspace():
                n -= 1
            return tuple(places[n:])
    return None if spoken.thought else tuple(places)


def _place(entry: Mapping[str, Any]) -> Place:
    taken = _token(entry)
    listed = tuple(_token(other) for other in entry.get("top_logprobs") or ())
    return Place(taken, listed if taken.text in {t.text for t in listed} else (*listed, taken))


def _token(entry: Mapping[str, Any]) -> Token:
    text, given = entry["token"], entry["logprob"]
    logprob = -math.inf if given is None else float(given)  # JSON knows no infinity
    if not isinstance(text, str) or math.isnan(logprob):
        raise ValueError("a token needs a text and a log-probability")
    return Token(_clean(text).translate(_BLANKS), min(logprob, 0.0))


def _to_entry(token: Token) -> dict[str, Any]:
    logprob = None if token.logprob == -math.inf else token.logprob
    return {"token": token.text, "logprob": logprob}


def _count(value: Any) -> int:
    """Read a number of tokens; 0 if it is none."""
    known = isinstance(value, int | float) and 0 <= value <= MOST_TOKENS
    return int(value) if known else 0


def _clean(text: str) -> str:
    """Replace lone halves of surrogate pairs, which JSON can write and UTF-8 can't."""
    return text.encode("utf-8", "replace").decode("utf-8")
