"""A data folder: the files that ship with the package, or a folder of the same form."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from cai.config import BadRows, ComparisonPrinciple, RevisionPrinciple
from cai.config.nodes import BUILTIN
from cai.data.forms import Forms
from cai.data.rows import read_rows
from cai.data.sets import Principles, Sets
from cai.data.source import Source
from cai.data.values import quoted, text_of
from cai.errors import UserError

log = logging.getLogger(__name__)

FILES = (
    "red_team.jsonl",
    "borderline.jsonl",
    "helpful.jsonl",
    "comparisons.jsonl",
    "demonstrations.jsonl",
    "judgements.jsonl",
    "principles.jsonl",
)
"""Files of a data folder."""

Record = TypeVar("Record")
Principle = RevisionPrinciple | ComparisonPrinciple


def read_folder(folder: Path = BUILTIN, bad: BadRows = BadRows.strict) -> Sets:
    """Read the files that ship with the package, or a folder of the same form.

    A set that the folder does not have is the one that ships with the package, and that is said.

    Raises:
        UserError: If the folder has none of the files, or one can't be read, or has a row that
            can't be used and the rule is strict.
    """
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    missing = [name for name in FILES if name not in present]
    if len(missing) == len(FILES):
        raise UserError(f"data.folder={folder} has none of {', '.join(FILES)}: give it one or more")
    if missing:
        log.info("data.folder has no %s: the built-in ones are used", ", ".join(missing))

    def rows(name: str, parse: Callable[[dict[str, Any]], Record]) -> list[Record]:
        place = (BUILTIN if name in missing else folder) / name
        return read_rows(Source("data.folder", place), parse, bad)

    return Sets(
        red_team=rows("red_team.jsonl", Forms().prompt),
        borderline=rows("borderline.jsonl", Forms().prompt),
        helpful=rows("helpful.jsonl", Forms().example),
        helpful_pairs=rows("comparisons.jsonl", Forms(source="helpful").comparison),
        harmless_pairs=None,
        demonstrations=rows("demonstrations.jsonl", Forms().demonstration),
        judgements=rows("judgements.jsonl", Forms(source="judgement").comparison),
        principles=_principles(rows("principles.jsonl", _Rules().principle)),
    )


class _Rules:
    """Makes principles of the rows of one file."""

    def __init__(self) -> None:
        self.known: set[tuple[type[Principle], str]] = set()

    def principle(self, row: dict[str, Any]) -> Principle:
        """Read one; an id names one principle of a phase."""
        found = self._read(row)
        if (type(found), found.id) in self.known:
            raise ValueError(f"the id {quoted(found.id)} is that of another principle before it")
        self.known.add((type(found), found.id))
        return found

    @staticmethod
    def _read(row: dict[str, Any]) -> Principle:
        if text_of(row, "phase") == "revision":
            texts = {key: text_of(row, key) for key in ("id", "critique", "revision")}
            return RevisionPrinciple(**texts)
        inverse = None if row.get("inverse") is None else text_of(row, "inverse")
        return ComparisonPrinciple(text_of(row, "id"), text_of(row, "text"), inverse)


def _principles(rows: list[Principle]) -> Principles:
    return Principles(
        [row for row in rows if isinstance(row, RevisionPrinciple)],
        [row for row in rows if isinstance(row, ComparisonPrinciple)],
    )
