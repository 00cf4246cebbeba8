"""Comparisons from outside, in the columns that preference trainers use."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cai.data.records import Comparison, Prompt
from cai.data.rows import read_numbered
from cai.dialogue import Conversation, Role, read_messages, read_prompt
from cai.errors import UserError

SOURCE = "pretrain"
"""The kind of comparison that such a file holds."""


def read_pairs(path: Path) -> dict[int, Comparison]:
    """Read a JSONL with ``prompt``, ``chosen`` and ``rejected``, each a text or messages, by line.

    A side given as messages is the reply alone, or the prompt and the reply. ``probability``, that
    the chosen reply is the better one, may be left out and is then 1.

    Raises:
        UserError: At a row that is malformed, with file and line, or if there is none.
    """
    pairs = dict(read_numbered(path, parse_columns))
    if not pairs:
        raise UserError(f"{path} has no comparisons: give rows with prompt, chosen and rejected")
    return pairs


def parse_columns(row: dict[str, Any]) -> Comparison:
    """Read one row.

    Raises:
        KeyError: If a column is missing.
        ValueError: Says what is wrong with one.
    """
    json.dumps(row, ensure_ascii=False).encode()  # half a surrogate pair can't be tokenised
    conversation = read_prompt(row["prompt"])
    chosen, rejected = (_reply(row[name], name, conversation) for name in ("chosen", "rejected"))
    probability = row.get("probability", 1.0)
    if isinstance(probability, bool) or not isinstance(probability, int | float):
        raise ValueError(f"'probability' is {probability!r} and should be a number")
    if not 0 <= probability <= 1:
        raise ValueError(f"'probability' is {probability} and should be in [0, 1]")
    digest = hashlib.sha256(repr(conversation).encode()).hexdigest()[:12]
    prompt = Prompt(f"{SOURCE}-{digest}", SOURCE, conversation)
    return Comparison(prompt, chosen, rejected, float(probability), SOURCE)


def _reply(value: object, name: str, prompt: Conversation) -> str:
    """Take the reply out of a column: a text, or messages that end with it."""
    if not isinstance(value, list):
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{name!r} should be a text that is not empty, or messages")
        return value.strip()
    return _last(value, name, prompt)


def _last(messages: Sequence[object], name: str, prompt: Conversation) -> str:
    alone = len(messages) == 1
    opening = [{"role": Role.HUMAN.value, "content": "?"}] if alone else []
    talk = read_messages([*opening, *messages])
    if talk[-1].role is not Role.ASSISTANT:
        raise ValueError(f"{name!r} should end with the assistant's message")
    if not alone and talk[:-1] != prompt:
        raise ValueError(f"{name!r} should begin with the messages of 'prompt'")
    return talk[-1].text
