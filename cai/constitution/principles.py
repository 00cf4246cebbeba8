"""Reproducible draws of principles, and the authors' released ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from cai.config import ComparisonPrinciple, ConstitutionConfig, RevisionPrinciple
from cai.data.foreign import document
from cai.errors import UserError

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


def _published(folder: Path) -> Constitution:
    """Read the files that the authors released, with their markers cut off."""
    pairs = _json(folder / CRITIQUE_FILE)
    comparisons = _json(folder / COMPARISON_FILE)
    if not (isinstance(pairs, dict) and pairs):
        raise UserError(f"{folder / CRITIQUE_FILE} should be an object of named principles")
    if not (isinstance(comparisons, list) and comparisons):
        raise UserError(f"{folder / COMPARISON_FILE} should be a list of principles")
    return Constitution(
        [_published_pair(folder / CRITIQUE_FILE, key, pair) for key, pair in pairs.items()],
        [
            ComparisonPrinciple(
                id=f"comparison{n}",
                text=_between(_text(folder / COMPARISON_FILE, str(n), text), "", "Options:"),
            )
            for n, text in enumerate(comparisons)
        ],
    )


def _published_pair(path: Path, key: str, pair: Any) -> RevisionPrinciple:
    """Read a critique request, which the files keep in a list of one, and its revision request."""
    requests = pair if isinstance(pair, dict) else {}
    critique = requests.get("prompt")
    if isinstance(critique, list) and len(critique) == 1:
        [critique] = critique
    return RevisionPrinciple(
        id=key,
        critique=_between(_text(path, f"{key}.prompt", critique), "CritiqueRequest:", "Critique:"),
        revision=_between(
            _text(path, f"{key}.edit_request", requests.get("edit_request")),
            "RevisionRequest:",
            "Revision:",
        ),
    )


def _text(path: Path, key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{path}: {key} should be a text, and is {json.dumps(value)[:60]}")
    return value


def _json(path: Path) -> Any:
    if not path.exists():
        raise UserError(f"constitution.folder has no {path.name}: give the released files")
    return document(path, "constitution.folder")


def _between(text: str, head: str, tail: str) -> str:
    body = text.strip().removeprefix(head).strip()
    return body.removesuffix(tail).strip()
