"""The one reader of rows from outside: JSON lines, a JSON list, CSV, parquet, plain lines, a hub.

Whatever lies at the place, what comes out is rows with where they stand, each usable or with its
fault in words, or a ``UserError`` about the file as a whole. Nothing is waited for, guessed or
quoted at length, and no row asks for more memory than the bounds below allow.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from cai.config import RowFormat
from cai.data.hub import arrow_rows, parquet_rows
from cai.data.source import Row, Source
from cai.data.values import LONGEST_TEXT, fault_of, parse_json, quoted
from cai.errors import UserError

LONGEST_LINE = 2**26
"""Bytes of a line."""
LARGEST_LIST = 2**30
"""Bytes of a file that is one JSON list, and so is read at once."""
MANY_COLUMNS = 10_000
BOM = b"\xef\xbb\xbf"
ENDINGS = {
    ".csv": RowFormat.csv,
    ".tsv": RowFormat.csv,
    ".parquet": RowFormat.parquet,
    ".pq": RowFormat.parquet,
    ".txt": RowFormat.lines,
}
"""What a file's name says of its format; any other is JSON."""


def rows_of(source: Source) -> Iterator[Row]:
    """Yield the rows of a source in their order.

    Raises:
        UserError: If the file is not there, is no regular file, can't be read, or lacks a column.
    """
    with _said(source):
        if source.hub is not None:
            rows = _placed(arrow_rows(source.hub, source.theirs), source, " row ")
        else:
            rows = _rows_of_file(source)
        yield from map(_checked(source), rows)


def document(path: Path, key: str) -> Any:
    """Read a file that is one JSON value.

    Raises:
        UserError: If it can't be read, with the line that is to blame.
    """
    source = Source(key, path)
    with _said(source), _opened(source, path) as file:
        data = file.read(LARGEST_LIST + 1).removeprefix(BOM)
    value, fault = (None, "is too large") if len(data) > LARGEST_LIST else parse_json(data)
    if fault is None:
        fault = fault_of(value)
    if fault is not None:
        raise UserError(f"{path}{_line_to_blame(data)} {fault}")
    return value


def _rows_of_file(source: Source) -> Iterator[Row]:
    path = cast(Path, source.path)
    kind = source.format
    if kind is RowFormat.auto:
        kind = _guess(source, path)
    if kind is RowFormat.parquet:
        with _opened(source, path) as file:
            yield from _placed(parquet_rows(file, source.theirs), source, ", row ")
        return
    with _opened(source, path) as file:
        reader = {RowFormat.csv: _csv, RowFormat.lines: _plain}.get(kind, _objects)
        yield from reader(file, source)


def _guess(source: Source, path: Path) -> RowFormat:
    """Tell the format by the first bytes, then by the name."""
    with _opened(source, path) as file:
        if file.read(4) == b"PAR1":
            return RowFormat.parquet
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    return ENDINGS.get(suffixes[-1] if suffixes else "", RowFormat.jsonl)


@contextmanager
def _opened(source: Source, path: Path) -> Iterator[IO[bytes]]:
    """Open a file, unpacked if it is compressed with gzip; a pipe or device is not waited for."""
    if not path.exists():
        raise UserError(f"{source.key}={path} does not exist: {source.hint}")
    if not path.is_file():
        raise UserError(f"{source.key}={path} is not a regular file: {source.hint}")
    with path.open("rb") as plain:
        packed = path.suffix.lower() == ".gz" or plain.read(2) == b"\x1f\x8b"
        plain.seek(0)
        if not packed:
            yield plain
            return
        with gzip.open(plain) as file:
            yield cast(IO[bytes], file)


@contextmanager
def _said(source: Source) -> Iterator[None]:
    """Say in one sentence why a file can't be read."""
    try:
        yield
    except (OSError, EOFError, zlib.error, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UserError(
            f"{source.key}={source.name} can't be read: {quoted(why, 200, bare=True)}"
        ) from error


def _placed(values: Iterator[tuple[Any, str | None]], source: Source, word: str) -> Iterator[Row]:
    for number, (value, fault) in enumerate(values, start=1):
        yield Row(f"{source.name}{word}{number}", number, value, fault)


def _lines(file: IO[bytes], source: Source) -> Iterator[tuple[int, bytes]]:
    """Yield numbers and lines that are not blank."""
    for number in itertools.count(1):
        line = file.readline(LONGEST_LINE + 1)
        if not line:
            return
        if len(line) > LONGEST_LINE:
            raise UserError(f"{source.name}:{number} is longer than {LONGEST_LINE:,} bytes")
        yield number, line.removeprefix(BOM) if number == 1 else line


def _objects(file: IO[bytes], source: Source) -> Iterator[Row]:
    """Read JSON, and look for the columns that the settings name, for there is no header."""
    names: dict[str, None] = {}
    for row in _json(file, source):
        if source.columns and isinstance(row.value, dict) and len(names) < MANY_COLUMNS:
            names.update(dict.fromkeys(row.value))
        yield row
    source.theirs(list(names) if names else list(source.columns.values()))


def _json(file: IO[bytes], source: Source) -> Iterator[Row]:
    """Read a value from each line, or one list of them."""
    if (file.read(len(BOM)).removeprefix(BOM) + file.read(64)).lstrip()[:1] == b"[":
        file.seek(0)
        yield from _list(file, source)
        return
    file.seek(0)
    for number, line in _lines(file, source):
        if line.strip():
            yield Row(f"{source.name}:{number}", number, *parse_json(line))


def _list(file: IO[bytes], source: Source) -> Iterator[Row]:
    data = file.read(LARGEST_LIST + 1).removeprefix(BOM)
    if len(data) > LARGEST_LIST:
        raise UserError(
            f"{source.name} is one list of more than {LARGEST_LIST:,} bytes: give JSONL"
        )
    values, fault = parse_json(data)
    if fault is not None:
        raise UserError(f"{source.name}{_line_to_blame(data)} {fault}")
    yield from (Row(f"{source.name}, item {n}", n, value) for n, value in enumerate(values, 1))


def _line_to_blame(data: bytes) -> str:
    try:
        json.loads(data.decode())
    except json.JSONDecodeError as error:
        return f":{error.lineno}"
    except (ValueError, RecursionError):
        return ""
    return ""


def _plain(file: IO[bytes], source: Source) -> Iterator[Row]:
    """Read a prompt from each line."""
    for number, line in _lines(file, source):
        if line.strip():
            text = line.decode(errors="surrogateescape").strip()
            yield Row(f"{source.name}:{number}", number, text)


def _csv(file: IO[bytes], source: Source) -> Iterator[Row]:
    """Read a table under its header; an empty cell is a value that is not there."""
    csv.field_size_limit(LONGEST_TEXT)
    lines = (line.decode(errors="surrogateescape") for _, line in _lines(file, source))
    path = cast(Path, source.path)
    table = csv.reader(lines, delimiter="\t" if ".tsv" in path.suffixes else ",", strict=True)
    try:
        header = next(table, [])
    except csv.Error as error:
        raise UserError(f"{source.name}:1 has no header that can be read: {error}") from error
    if len({*header, ""}) <= len(header):
        raise UserError(f"{source.name}:1 should name every column once, and none by nothing")
    source.theirs(header)
    yield from _cells(table, header, source)


def _cells(table: Any, header: Sequence[str], source: Source) -> Iterator[Row]:
    while True:
        number = table.line_num + 1
        where = f"{source.name}:{number}"
        try:
            cells = next(table)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row(where, number, None, f"is not CSV: {error}")
            continue
        if len(cells) == len(header):
            filled = {name: _cell(cell) for name, cell in zip(header, cells, strict=True) if cell}
            yield Row(where, number, filled)
        elif cells:
            yield Row(where, number, None, f"has {len(cells)} cells, and the header {len(header)}")


def _cell(text: str) -> Any:
    """Read a cell: a list of messages in JSON, or a text."""
    if text.lstrip().startswith("[{"):
        value, fault = parse_json(text.encode(errors="surrogateescape"))
        return text if fault else value
    return text


def _checked(source: Source) -> Callable[[Row], Row]:
    """Return what selects columns, and finds what no reader of rows could bear."""

    def check(row: Row) -> Row:
        if row.fault is not None:
            return row
        value = source.select(row.value)
        return row._replace(value=value, fault=fault_of(value))

    return check
