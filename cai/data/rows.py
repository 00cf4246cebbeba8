"""Reading JSONL from outside: a bad row is named by file and line, never mangled."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from cai.errors import UserError

Row = TypeVar("Row")


def open_text(path: Path) -> Any:
    """Open a text file that may be compressed with gzip.

    Raises:
        UserError: If there is none.
    """
    if not path.is_file():
        raise UserError(f"data file {str(path)!r} does not exist: check data.folder")
    return (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8")


def numbered_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield line numbers and objects of a JSONL file; blank lines are skipped.

    Raises:
        UserError: At a line that is not a JSON object, with file and line.
    """
    with open_text(path) as file:
        for number, line in enumerate(_lines(file, path), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{path}:{number} is not JSON: {error.msg}") from error
            if not isinstance(row, dict):
                raise UserError(f"{path}:{number} should be a JSON object with keys and values")
            yield number, row


def read_rows(path: Path, parse: Callable[[dict[str, Any]], Row]) -> list[Row]:
    """Parse every row of a JSONL file.

    Raises:
        UserError: At a row that lacks a key or is malformed, with file and line.
    """
    return [record for _, record in read_numbered(path, parse)]


def read_numbered(path: Path, parse: Callable[[dict[str, Any]], Row]) -> Iterator[tuple[int, Row]]:
    """Do what ``read_rows`` does, and give each record's line as well."""
    for number, row in numbered_rows(path):
        try:
            record = parse(row)
        except KeyError as error:
            raise UserError(f"{path}:{number} lacks the key {error.args[0]!r}") from error
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}:{number} is malformed: {error}") from error
        yield number, record


def text_of(row: dict[str, Any], key: str) -> str:
    """Return a text of a row, stripped.

    Raises:
        KeyError: If it is missing.
        ValueError: If it is not a text or empty.
    """
    value = row[key]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{key!r} should be a text that is not empty")
    return value.strip()


def _lines(file: Any, path: Path) -> Iterator[str]:
    try:
        yield from file
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
        raise UserError(f"data file {str(path)!r} can't be read as UTF-8 text: {error}") from error
