"""People's choices between the systems' replies, as an evaluation is given them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from cai.data.rows import read_rows, text_of
from cai.errors import UserError

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
    path: Path, systems: Collection[str], prompts: Collection[str]
) -> list[HumanChoice]:
    """Read ``{"a", "b", "prompt_id", "axis", "choice"}`` per line.

    Args:
        path: JSONL, plain or compressed with gzip.
        systems: Names that ``a`` and ``b`` may have.
        prompts: Ids of the prompts that the systems were asked.

    Raises:
        UserError: If there is no such file, it has no choices, or at a row that is malformed or
            names what was not evaluated, with file and line.
    """
    if not path.is_file():
        raise UserError(
            f"evaluate.opinions.human_choices={path} does not exist: give a JSONL file or null"
        )

    def parse(row: dict[str, Any]) -> HumanChoice:
        a, b = (_known(row, side, systems, "systems") for side in ("a", "b"))
        if a == b:
            raise ValueError(f"'a' and 'b' are both {a!r}, and a choice is between two systems")
        prompt = _known(row, "prompt_id", prompts, "prompts")
        return HumanChoice(a, b, prompt, _known(row, "axis", AXES, "axes"), _outcome(row["choice"]))

    choices = read_rows(path, parse)
    if not choices:
        raise UserError(
            f"evaluate.opinions.human_choices={path} has no choices: add some or set it to null"
        )
    return choices


def _known(row: dict[str, Any], key: str, names: Collection[str], kind: str) -> str:
    name = text_of(row, key)
    if name not in names:
        shown = sorted(names)[:8]
        more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
        raise ValueError(
            f"{key}={name!r} is unknown: the {kind} evaluated are {', '.join(shown)}{more}"
        )
    return name


def _outcome(choice: object) -> float:
    if isinstance(choice, str) and choice in OUTCOMES:
        return OUTCOMES[choice]
    if isinstance(choice, int | float) and not isinstance(choice, bool) and 0 <= choice <= 1:
        return float(choice)
    raise ValueError(
        f"choice={choice!r} should be a, b, tie, or the probability in [0, 1] that a is better"
    )
