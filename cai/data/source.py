"""Where rows are and what they are called there, and a row as it stands."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from cai.config import RowFormat
from cai.data.hub import HubSet
from cai.data.values import quoted
from cai.errors import UserError


class Row(NamedTuple):
    """A row as it stands in its file.

    Attributes:
        where: File and line, for messages.
        number: Of the line, or of the row where there are no lines.
        value: What it holds; None if it can't be read.
        fault: Why it can't; a predicate such as "is not JSON".
    """

    where: str
    number: int
    value: Any = None
    fault: str | None = None


@dataclass(frozen=True)
class Source:
    """Where rows are.

    Attributes:
        key: The setting, or the argument of a command, that names it.
        path: Of the file; None for a data set of a hub.
        hub: The data set of a hub, or None.
        format: Of the file.
        columns: The file's name of a column by ours, where they differ.
        wanted: Our names of the columns that are of use; None: all, and rows are as they stand.
        hint: What else the setting could be, for messages.
    """

    key: str
    path: Path | None
    hub: HubSet | None = None
    format: RowFormat = RowFormat.auto
    columns: Mapping[str, str] = field(default_factory=dict)
    wanted: Sequence[str] | None = None
    hint: str = "give the path of a file"

    @property
    def name(self) -> str:
        """Return what messages call it."""
        return str(self.path) if self.hub is None else str(self.hub)

    def select(self, value: Any) -> Any:
        """Return a row under our names of the wanted columns; what is not there is left out."""
        if self.wanted is None:
            return value
        if isinstance(value, str) and "prompt" in self.wanted:
            return {"prompt": value}
        if not isinstance(value, dict):
            return value
        return {ours: value[theirs] for ours, theirs in self._names.items() if theirs in value}

    @cached_property
    def _names(self) -> dict[str, str]:
        """Name the column of each of ours; a column that is named for one is not also its own."""
        taken = set(self.columns.values())
        own = {name: name for name in self.wanted or () if name not in taken}
        return {**own, **self.columns}

    def theirs(self, names: Sequence[str]) -> list[str] | None:
        """Return which of a file's columns are read; None for all.

        Raises:
            UserError: If a column that the settings name is not there.
        """
        if self.wanted is None:
            return None
        for ours, column in self.columns.items():
            if column not in names:
                raise self.no_column(ours, names)
        read = {*self.wanted, *self.columns.values()}
        return [name for name in names if name in read]

    def no_column(self, ours: str, names: Collection[str]) -> UserError:
        """Say that a column that the settings name is not there."""
        found = quoted(", ".join(map(str, itertools.islice(names, 20))) or "none", 200, bare=True)
        node = self.key.rpartition(".")[0]
        return UserError(
            f"{node}.columns.{ours}={quoted(self.columns[ours])} is no column of "
            f"{self.name}: it has {found}"
        )
