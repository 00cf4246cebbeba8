"""People's choices between the systems' replies: written by the arena, read by an evaluation."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from cai.config import BadRows
from cai.data.rows import read_rows, some
from cai.data.source import Source
from cai.data.values import quoted, text_of
from cai.dialogue import check_prompt, read_messages
from cai.errors import UserError
from cai.results.common import AXES

OUTCOMES = {"a": 1.0, "b": 0.0, "tie": 0.5}


class HumanChoice(NamedTuple):
    """One choice: how probable it is, or was found, that ``a`` is the better system here.

    ``sample`` tells several replies to one prompt apart, or the exchanges of one chat, whose id is
    the prompt's. ``annotator`` is a person's name, if one is given.
    """

    a: str
    b: str
    prompt_id: str
    axis: str
    outcome: float
    sample: int = 0
    annotator: str | None = None


def read_choices(
    path: Path, systems: Collection[str], prompts: Collection[str], bad: BadRows
) -> list[HumanChoice]:
    """Read rows with ``a``, ``b``, ``prompt_id``, ``axis`` and ``choice``.

    A row may have ``sample`` and ``annotator``, too; of several choices of one annotator between
    the same two replies the last counts. A row with ``messages`` is of a conversation of its own,
    and its ``prompt_id`` is that conversation's.

    Args:
        path: Of the file.
        systems: Names that ``a`` and ``b`` may have.
        prompts: Ids of the prompts that the systems were asked.
        bad: What becomes of rows that can't be used.

    Raises:
        UserError: If there is no such file, it has no choices, or at a row that is malformed or
            names what was not evaluated, with file and line.
    """
    choices = choices_in(path, systems, prompts, bad)
    some(_source(path), choices)
    return choices


def choices_in(
    path: Path,
    systems: Collection[str],
    prompts: Collection[str],
    bad: BadRows = BadRows.strict,
) -> list[HumanChoice]:
    """Do what ``read_choices`` does for a file that is there and may have no choices yet."""

    def parse(row: dict[str, Any]) -> HumanChoice:
        a, b = (_known(row, side, systems, "systems") for side in ("a", "b"))
        if a == b:
            raise ValueError(f"'a' and 'b' are both {quoted(a)}, and a choice is between two")
        if "messages" in row:
            check_prompt(read_messages(row["messages"]))
            prompt = text_of(row, "prompt_id")
        else:
            prompt = _known(row, "prompt_id", prompts, "prompts")
        axis, outcome = _known(row, "axis", AXES, "axes"), _outcome(row["choice"])
        annotator = None if row.get("annotator") is None else text_of(row, "annotator")
        return HumanChoice(a, b, prompt, axis, outcome, _sample(row.get("sample", 0)), annotator)

    return _last(read_rows(_source(path), parse, bad))


def _source(path: Path) -> Source:
    return Source("evaluate.opinions.human_choices", path, hint="give people's choices, or null")


def append_choice(path: Path, row: Mapping[str, Any]) -> None:
    """Append a choice, whole or not at all, and return when it is on the disk.

    What somebody who was killed has left of a line is cut off first: nobody was told that it was
    kept. Several processes may append to one file.

    Raises:
        UserError: If it can't be written.
    """
    line = (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "replace")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(path.name + ".lock")):
            _mend(path)
            with path.open("ab", buffering=0) as file:
                file.write(line)
                os.fsync(file.fileno())
    except OSError as error:
        raise UserError(
            f"the choice was not kept, for {path} can't be written ({error.strerror}): make room "
            "or choose another folder, and choose again"
        ) from error


def _mend(path: Path) -> None:
    """Cut off a last line that does not end."""
    if not path.is_file():
        return
    with path.open("rb+") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)


def _last(choices: list[HumanChoice]) -> list[HumanChoice]:
    """Keep of each annotator's choices between the same two replies the last."""
    kept: dict[object, HumanChoice] = {}
    for number, choice in enumerate(choices):
        unit = (choice.prompt_id, choice.sample, choice.axis, frozenset((choice.a, choice.b)))
        kept[number if choice.annotator is None else (choice.annotator, unit)] = choice
    return list(kept.values())


def _sample(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError(f"sample={quoted(value)} should be a whole number from 0")


def _known(row: dict[str, Any], key: str, names: Collection[str], kind: str) -> str:
    name = text_of(row, key)
    if name not in names:
        shown = sorted(names)[:8]
        more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
        raise ValueError(
            f"{key}={quoted(name)} is unknown: the {kind} evaluated are {', '.join(shown)}{more}"
        )
    return name


def _outcome(choice: object) -> float:
    if isinstance(choice, str) and choice in OUTCOMES:
        return OUTCOMES[choice]
    if isinstance(choice, int | float) and not isinstance(choice, bool) and 0 <= choice <= 1:
        return float(choice)
    raise ValueError(
        f"choice={quoted(choice)} should be a, b, tie, or the probability in [0, 1] that a is "
        "better"
    )
