"""Add the style of each reply to a JSONL file: ``python -m cai.classify IN.jsonl OUT.jsonl``.

A row needs ``prompt`` and ``response``, or ``messages`` of which the last is the assistant's. The
rows are written with ``style``, ``refusal``, ``evasive``, ``boilerplate`` and ``probability`` (of
the style) added; nothing is written unless every row could be read.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cai.errors import UserError
from cai.evasiveness.classifier import classify

_SPEAKERS = {"user": "Human", "assistant": "Assistant"}


def _speech(message: object) -> tuple[str, str]:
    """Return role and text of a message."""
    if not isinstance(message, Mapping):
        raise ValueError("'messages' must hold objects with a role and a content")
    role, content = message.get("role"), message.get("content")
    if role not in {*_SPEAKERS, "system"} or not isinstance(content, str):
        raise ValueError("a message needs a role (user, assistant or system) and a text as content")
    return role, content


def read_reply(row: object) -> tuple[str, str]:
    r"""Take the prompt and the reply out of a row.

    Args:
        row: What stood on a line of the file.

    Returns:
        The prompt, which for ``messages`` is a transcript ``\n\nHuman: ...\n\nAssistant:``, and
        the reply.

    Raises:
        ValueError: Says what the row lacks.
    """
    if not isinstance(row, dict):
        raise ValueError("a row must be a JSON object")
    if "messages" not in row or "response" in row:
        prompt, response = row.get("prompt"), row.get("response")
        if not isinstance(prompt, str) or not isinstance(response, str):
            raise ValueError("a row needs texts 'prompt' and 'response', or 'messages'")
        return prompt, response
    messages = row["messages"]
    if not isinstance(messages, list) or not messages:
        raise ValueError("'messages' must be a list that is not empty")
    *before, (role, response) = map(_speech, messages)
    if role != "assistant":
        raise ValueError("the last of 'messages' must be the assistant's")
    turns = [f"\n\n{_SPEAKERS[who]}: {text}" for who, text in before if who in _SPEAKERS]
    return "".join(turns) + "\n\nAssistant:", response


def classified(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row with the classifier's findings added."""
    reading = classify(*read_reply(row))
    return {
        **row,
        "style": reading.style.value,
        "refusal": reading.refusal,
        "evasive": reading.evasive,
        "boilerplate": reading.boilerplate,
        "probability": round(reading.probability, 4),
    }


def _rows(source: Path) -> Iterator[str]:
    """Yield the classified rows as lines of JSON; blank lines are passed over."""
    with source.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                yield json.dumps(classified(json.loads(line)), ensure_ascii=False)
            except json.JSONDecodeError as error:
                raise UserError(f"{source}, line {number}: not JSON ({error.msg}).") from error
            except ValueError as error:
                raise UserError(f"{source}, line {number}: {error}.") from error


def classify_file(source: Path, target: Path) -> int:
    """Classify a file's replies; the target appears whole or not at all.

    Args:
        source: JSONL to read.
        target: JSONL to write; may be the source.

    Returns:
        The number of rows.

    Raises:
        UserError: If a file cannot be read or written or a row is malformed.
    """
    if not target.parent.is_dir():
        raise UserError(f"{target.parent}: there is no such folder to write to.")
    partial: str | None = None
    count = 0
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=target.parent, prefix=f".{target.name}.", delete=False
        ) as out:
            partial = out.name
            for line in _rows(source):
                out.write(line + "\n")
                count += 1
        Path(partial).chmod(0o666 & ~_umask())
        Path(partial).replace(target)
        partial = None
    except UnicodeDecodeError as error:
        raise UserError(f"{source} is not UTF-8 text.") from error
    except OSError as error:
        raise UserError(f"{error.filename or source}: {error.strerror}.") from error
    finally:
        if partial is not None:
            Path(partial).unlink(missing_ok=True)
    return count


def _umask() -> int:
    """Return the process's umask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m cai.classify", description="Add the style of each reply to a JSONL file."
    )
    parser.add_argument("source", type=Path, metavar="IN.jsonl")
    parser.add_argument("target", type=Path, metavar="OUT.jsonl")
    options = parser.parse_args(arguments)
    try:
        classify_file(options.source, options.target)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
