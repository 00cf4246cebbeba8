"""What becomes of rows that can't be used: one rule, counted and named by file and line."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from cai.config import BadRows
from cai.data.foreign import rows_of
from cai.data.source import Row, Source
from cai.data.values import quoted
from cai.errors import UserError

log = logging.getLogger(__name__)

SHOWN = 20
"""Faulty rows that are named one by one."""
KINDS = 8
"""Faults that are told apart."""

Record = TypeVar("Record")


class Placed(NamedTuple, Generic[Record]):
    """A record, and the file and line that it is from."""

    where: str
    number: int
    record: Record


@dataclass
class Faults:
    """Rows that can't be used.

    Attributes:
        total: All rows, usable or not.
        count: The faulty ones.
        first: As many of them as are shown, each as file and line, and why.
        kinds: How often each fault was met, and the first row that had it.
    """

    total: int = 0
    count: int = 0
    first: list[tuple[str, str]] = field(default_factory=list)
    kinds: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add(self, where: str, fault: str) -> None:
        """Count a row."""
        self.count += 1
        if len(self.first) < SHOWN:
            self.first.append((where, fault))
        kind = fault if fault in self.kinds or len(self.kinds) < KINDS else "has another fault"
        n, first = self.kinds.get(kind, (0, where))
        self.kinds[kind] = (n + 1, first)

    def listed(self) -> list[str]:
        """Return a line for each of the first faulty rows, and one for the rest."""
        lines = [f"{where} {fault}" for where, fault in self.first]
        rest = self.count - len(self.first)
        return [*lines, f"and {rest} more"] if rest else lines


def collect(
    source: Source, parse: Callable[[Any], Record], *, objects: bool = True
) -> tuple[list[Placed[Record]], Faults]:
    """Parse every row of a source.

    Args:
        source: Where the rows are.
        parse: Makes a record of a row; raises KeyError at a column that is not there, and
            ValueError, which says what is wrong, at any other fault.
        objects: Refuse rows that are no objects, before they are parsed.

    Raises:
        UserError: If the source as a whole can't be read.
    """
    records: list[Placed[Record]] = []
    faults = Faults()
    for row in rows_of(source):
        faults.total += 1
        fault = row.fault
        if fault is None and objects and not isinstance(row.value, dict):
            fault = "should be a JSON object with keys and values"
        if fault is None:
            fault = _parsed(row, parse, records)
        if fault is not None:
            faults.add(row.where, fault)
    return records, faults


def apply_rule(source: Source, records: Sequence[object], faults: Faults, bad: BadRows) -> None:
    """Refuse rows that can't be used, or say which are left out.

    Raises:
        UserError: If one can't be used and the rule is strict, or none of those there are can.
    """
    if faults.count and (bad is BadRows.strict or not records):
        raise UserError(_refusal(source, faults, bad))
    for fault, (count, first) in faults.kinds.items():
        log.warning("%s: %d rows left out, first %s %s", source.key, count, first, fault)


def read_placed(
    source: Source, parse: Callable[[Any], Record], bad: BadRows
) -> list[Placed[Record]]:
    """Parse every row of a source, and refuse or leave out those that can't be used.

    Raises:
        UserError: If one can't be used and the rule is strict, or none of those there are can.
    """
    records, faults = collect(source, parse)
    apply_rule(source, records, faults, bad)
    return records


def read_rows(source: Source, parse: Callable[[Any], Record], bad: BadRows) -> list[Record]:
    """Do what ``read_placed`` does, without saying where each record is from."""
    return [record for _, _, record in read_placed(source, parse, bad)]


def read_whole(source: Source, parse: Callable[[Any], Record]) -> list[Record]:
    """Parse every row of a file that a command is given.

    Raises:
        UserError: Names the first rows that can't be used, one a line, and counts the others.
    """
    records, faults = collect(source, parse)
    if faults.count:
        raise UserError("\n".join(faults.listed()))
    return [record for _, _, record in records]


def some(source: Source, records: Sequence[Record]) -> Sequence[Record]:
    """Return records if there are any.

    Raises:
        UserError: If there are none.
    """
    if not records:
        raise UserError(f"{source.key}={source.name} has no rows: {source.hint}")
    return records


def _parsed(row: Row, parse: Callable[[Any], Record], records: list[Placed[Record]]) -> str | None:
    """Add the record of a row, or say what is wrong."""
    try:
        records.append(Placed(row.where, row.number, parse(row.value)))
    except KeyError as error:
        return f"lacks the key {error.args[0]!r}"
    except ValueError as error:
        return f"is malformed: {quoted(error, 300, bare=True)}"
    return None


def _refusal(source: Source, faults: Faults, bad: BadRows) -> str:
    where, fault = faults.first[0]
    if faults.count == faults.total > 1:
        return (
            f"{source.key}={source.name}: none of {faults.total} rows can be used; "
            f"the first, {where}, {fault}"
        )
    more = f" (and {faults.count - 1} more of {faults.total} rows can't be used)"
    advice = ", or leave it out by data.bad_rows=skip" if bad is BadRows.strict else ""
    return f"{where} {fault}{more if faults.count > 1 else ''}; mend it{advice}"
