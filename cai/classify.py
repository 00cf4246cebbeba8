"""Add the style of each reply to a JSONL file: ``python -m cai.classify IN.jsonl OUT.jsonl``.

A row needs ``prompt`` and ``response``, or ``messages`` of which the last is the assistant's. The
rows are written with ``style``, ``refusal``, ``evasive``, ``boilerplate``, ``probability`` (of the
style, given whether the request is declined) and ``styles`` (the probability of every style) added;
nothing is written unless every row could be read.

The replies are read with SmolLM2-135M. ``--rules`` takes the quick form, which needs no model and
misses objections that hold no phrase of refusal.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cai.command import check_room, command
from cai.config import RowFormat
from cai.data.rows import read_whole
from cai.data.source import Source
from cai.errors import UserError
from cai.evasiveness.classifier import Read, Reading, by_rules
from cai.evasiveness.text import Exchange
from cai.files import replacing

if TYPE_CHECKING:
    from cai.lm.load import LanguageModel

_SPEAKERS = {"user": "Human", "assistant": "Assistant"}


def _speech(message: object) -> tuple[str, str]:
    """Return role and text of a message."""
    if not isinstance(message, Mapping):
        raise ValueError("'messages' must hold objects with a role and a content")
    role, content = message.get("role"), message.get("content")
    if role not in (*_SPEAKERS, "system") or not isinstance(content, str):
        raise ValueError("a message needs a role (user, assistant or system) and a text as content")
    return role, content


def read_reply(row: Mapping[str, Any]) -> tuple[str, str]:
    r"""Take the prompt and the reply out of a row.

    Args:
        row: What stood on a line of the file.

    Returns:
        The prompt, which for ``messages`` is a transcript ``\n\nHuman: ...\n\nAssistant:``, and
        the reply.

    Raises:
        ValueError: Says what the row lacks.
    """
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


def load_base(hardware: str) -> LanguageModel:
    """Load the base that the shipped read-out belongs to.

    Args:
        hardware: A file of conf/hardware.

    Raises:
        UserError: If the base can't be had.
    """
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    check_room()
    from cai.composition import CONF
    from cai.config import HardwareConfig, ModelConfig
    from cai.lm.load import load_model

    def typed(schema: type[Any], values: Any) -> Any:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), values))

    with initialize_config_dir(str(CONF), version_base="1.3"):
        chosen = compose(overrides=["+model=smollm2", f"+hardware={hardware}"])
    return load_model(typed(ModelConfig, chosen.model), typed(HardwareConfig, chosen.hardware))


def by_meaning(hardware: str) -> Read:
    """Return the form that reads hidden states; the base is loaded once there is work for it."""

    def read(exchanges: Sequence[Exchange]) -> list[Reading]:
        from cai.evasiveness.readout import Classifier

        return Classifier(load_base(hardware))(exchanges)

    return read


def with_findings(row: dict[str, Any], reading: Reading) -> dict[str, Any]:
    """Return the row with the classifier's findings added."""
    return {
        **row,
        "style": reading.style.value,
        "refusal": reading.refusal,
        "evasive": reading.evasive,
        "boilerplate": reading.boilerplate,
        "probability": round(reading.probability, 4),
        "styles": {style.value: round(share, 4) for style, share in reading.styles.items()},
    }


def _row(row: dict[str, Any]) -> tuple[dict[str, Any], Exchange]:
    """Return a row and what is to be classified in it."""
    return row, read_reply(row)


def classify_file(source: Path, target: Path, read: Read = by_rules) -> int:
    """Classify a file's replies; the target appears whole or not at all.

    Args:
        source: JSONL to read.
        target: JSONL to write; may be the source.
        read: The form of the classifier.

    Returns:
        The number of rows.

    Raises:
        UserError: If a file cannot be read or written or a row is malformed.
    """
    if not target.parent.is_dir():
        raise UserError(f"{target.parent}: there is no such folder to write to.")
    try:
        rows = read_whole(Source("IN", source, format=RowFormat.jsonl), _row)
        readings = read([exchange for _, exchange in rows])
        found = [with_findings(row, each) for (row, _), each in zip(rows, readings, strict=True)]
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in found)
        with replacing(target) as scratch, scratch.open("w", encoding="utf-8") as out:
            out.writelines(lines)
    except OSError as error:
        raise UserError(f"{error.filename or source}: {error.strerror}.") from error
    return len(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return command(lambda: _main(arguments))


def _main(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m cai.classify", description="Add the style of each reply to a JSONL file."
    )
    parser.add_argument("source", type=Path, metavar="IN.jsonl")
    parser.add_argument("target", type=Path, metavar="OUT.jsonl")
    parser.add_argument("--rules", action="store_true", help="the quick form, without a model")
    parser.add_argument("--hardware", choices=["auto", "cpu", "gpu"], default="auto")
    options = parser.parse_args(arguments)
    read = by_rules if options.rules else by_meaning(options.hardware)
    classify_file(options.source, options.target, read)
    return 0


if __name__ == "__main__":
    sys.exit(main())
