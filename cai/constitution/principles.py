"""Reproducible draws of principles, and the authors' released ones."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from cai.config import ComparisonPrinciple, ConstitutionConfig, RevisionPrinciple
from cai.errors import UserError

Item = TypeVar("Item")

CRITIQUE_FILE = "CritiqueRevisionInstructions.json"
COMPARISON_FILE = "RLMadisonInstructions.json"


class Constitution(NamedTuple):
    """The principles of both phases, cut to the first ``n_principles``."""

    revision: list[RevisionPrinciple]
    comparison: list[ComparisonPrinciple]


def load_constitution(config: ConstitutionConfig) -> Constitution:
    """Return the principles that a run may draw from.

    Raises:
        UserError: If there are fewer than ``constitution.n_principles``.
    """
    sets = (
        _published(Path(config.folder))
        if config.folder
        else Constitution(config.revision, config.comparison)
    )
    if config.n_principles is None:
        return sets
    for name, principles in sets._asdict().items():
        if len(principles) < config.n_principles:
            raise UserError(
                f"constitution.n_principles={config.n_principles} is more than the "
                f"{len(principles)} {name} principles of {config.name!r}"
            )
    n = config.n_principles
    return Constitution(sets.revision[:n], sets.comparison[:n])


def seed_of(*parts: object) -> int:
    """Return a 63-bit seed that depends on every part and on nothing else."""
    digest = hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def draw(items: Sequence[Item], n: int, *key: object, replacement: bool = True) -> list[Item]:
    """Draw ``n`` items; the same key gives the same ones, in whatever order rows are made.

    Without replacement an item comes back only after all others have been drawn.
    """
    source = random.Random(seed_of("draw", *key))
    if replacement:
        return [source.choice(items) for _ in range(n)]
    drawn: list[Item] = []
    while len(drawn) < n:
        drawn += source.sample(items, len(items))
    return drawn[:n]


def _published(folder: Path) -> Constitution:
    """Read the files that the authors released, with their markers cut off."""
    pairs = _json(folder / CRITIQUE_FILE)
    comparisons = _json(folder / COMPARISON_FILE)
    return Constitution(
        [
            RevisionPrinciple(
                id=key,
                critique=_between(pair["prompt"][0], "CritiqueRequest:", "Critique:"),
                revision=_between(pair["edit_request"], "RevisionRequest:", "Revision:"),
            )
            for key, pair in pairs.items()
        ],
        [
            ComparisonPrinciple(id=f"comparison{n}", text=_between(text, "", "Options:"))
            for n, text in enumerate(comparisons)
        ],
    )


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"constitution.folder has no {path.name}: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno} is not JSON: {error.msg}") from error


def _between(text: str, head: str, tail: str) -> str:
    body = text.strip().removeprefix(head).strip()
    return body.removesuffix(tail).strip()
