"""People's choices between the systems' replies, as an evaluation is given them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from cai.config import BadRows
from cai.data.rows import read_rows, some
from cai.data.source import Source
from cai.data.values import quoted, text_of

AXES = ("harmlessness", "helpfulness")
OUTCOMES = {"a": 1.0, "b": 0.0, "tie": 0.5}


class HumanChoice(NamedTuple):
    """One choice: how probable it is, or was found, that ``a`` is the better system here."""

    a: str
    b: str
    prompt_id: str
    axis: str
    outcome: float


def read_choices(
    path: Path, systems: Collection[str], prompts: Collection[str], bad: BadRows
) -> list[HumanChoice]:
    """Read rows with ``a``, ``b``, ``prompt_id``, ``axis`` and ``choice``.

    Args:
        path: Of the file.
        systems: Names that ``a`` and ``b`` may have.
        prompts: Ids of the prompts that the systems were asked.
        bad: What becomes of rows that can't be used.

    Raises:
        UserError: If there is no such file, it has no choices, or at a row that is malformed or
            names what was not evaluated, with file and line.
    """

    def parse(row: dict[str, Any]) -> HumanChoice:
        a, b = (_known(row, side, systems, "systems") for side in ("a", "b"))
        if a == b:
            raise ValueError(f"'a' and 'b' are both {quoted(a)}, and a choice is between two")
        prompt = _known(row, "prompt_id", prompts, "prompts")
        return HumanChoice(a, b, prompt, _known(row, "axis", AXES, "axes"), _outcome(row["choice"]))

    source = Source("evaluate.opinions.human_choices", path, hint="give people's choices, or null")
    choices = read_rows(source, parse, bad)
    some(source, choices)
    return choices


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
