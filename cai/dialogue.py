"""Conversations between a human and an assistant, as data and as text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, NamedTuple


class Role(Enum):
    """Who speaks; the values are the field's usual names in JSON."""

    HUMAN = "user"
    ASSISTANT = "assistant"


class Turn(NamedTuple):
    """One utterance."""

    role: Role
    text: str


Conversation = tuple[Turn, ...]

_NAMES = {Role.HUMAN: "Human", Role.ASSISTANT: "Assistant"}
_MARKER = re.compile(r"\n\n(Human|Assistant):")


def human(text: str) -> Turn:
    """Make a turn of the human."""
    return Turn(Role.HUMAN, text)


def assistant(text: str) -> Turn:
    """Make a turn of the assistant."""
    return Turn(Role.ASSISTANT, text)


def to_text(conversation: Conversation, names: Mapping[Role, str] = _NAMES) -> str:
    r"""Write a conversation in the published format, ``\n\nHuman: ...\n\nAssistant: ...``."""
    return "".join(f"\n\n{names[turn.role]}: {turn.text}" for turn in conversation)


def from_text(text: str) -> Conversation:
    r"""Read the published format; a marker counts only after a blank line.

    Raises:
        ValueError: If the text does not start with a human turn, turns do not alternate, or one is
            empty.
    """
    pieces = _MARKER.split(text if text.startswith("\n\n") else "\n\n" + text.lstrip("\n"))
    if pieces[0].strip():
        raise ValueError("the text before the first 'Human:' is not empty")
    roles = {name: role for role, name in _NAMES.items()}
    turns = [
        Turn(roles[name], body.strip())
        for name, body in zip(pieces[1::2], pieces[2::2], strict=True)
    ]
    return check(tuple(turns))


def from_messages(messages: Iterable[Mapping[str, Any]]) -> Conversation:
    """Read ``[{"role": "user", "content": ...}, ...]``.

    Raises:
        ValueError: If a message lacks a role or content, or the turns are not a dialogue.
    """
    turns = []
    for number, message in enumerate(messages, start=1):
        role, content = message.get("role"), message.get("content")
        if role not in ("user", "assistant") or not isinstance(content, str):
            raise ValueError(
                f"message {number} needs a role (user or assistant) and a text as content"
            )
        turns.append(Turn(Role(role), content.strip()))
    return check(tuple(turns))


def to_messages(conversation: Conversation) -> list[dict[str, str]]:
    """Write ``[{"role": "user", "content": ...}, ...]``."""
    return [{"role": turn.role.value, "content": turn.text} for turn in conversation]


def check(conversation: Conversation) -> Conversation:
    """Return the conversation if it alternates, starts with the human and has no empty turn.

    Raises:
        ValueError: Says which rule is broken, and where.
    """
    if not conversation:
        raise ValueError("the conversation has no turns")
    for number, turn in enumerate(conversation):
        expected = Role.ASSISTANT if number % 2 else Role.HUMAN
        if turn.role is not expected:
            raise ValueError(f"turn {number + 1} should be the {_NAMES[expected].lower()}'s")
        if not turn.text:
            raise ValueError(f"turn {number + 1} is empty")
    return conversation


def check_prompt(conversation: Conversation) -> Conversation:
    """Return the conversation if it is one and the assistant is next to speak.

    Raises:
        ValueError: If the last turn is the assistant's, or the conversation is malformed.
    """
    if check(conversation)[-1].role is not Role.HUMAN:
        raise ValueError("a prompt must end with the human's turn")
    return conversation


def read_prompt(value: object) -> Conversation:
    r"""Read a prompt from outside: messages, bare human text, or ``Human: ...\n\nAssistant:``.

    Raises:
        ValueError: If it is neither, or no prompt.
    """
    if not isinstance(value, str):
        return check_prompt(read_messages(value))
    text = value.strip()
    if not text.startswith("Human:"):
        return check_prompt((human(text),))
    return check_prompt(from_text(text.removesuffix("\n\nAssistant:")))


def read_messages(value: object) -> Conversation:
    """Read messages from outside, whatever they turn out to be.

    Raises:
        ValueError: If they are not a dialogue.
    """
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        raise ValueError("what comes before a reply must be a text or a list of messages")
    return from_messages(value)
