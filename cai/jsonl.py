"""The one codec between dataclasses and JSON: rows on lines, or one document.

Fields are written in their order and read back with their types checked; what is not a field is
refused. pydantic does it, and is loaded when a file is first read or written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cai.files import replacing, write_json

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")

_EXACTLY: dict[str, Any] = {"strict": True, "extra": "forbid"}
_adapters: dict[Any, TypeAdapter[Any]] = {}


def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


def to_json(value: object, kind: Any = None) -> Any:
    """Turn a dataclass, or containers of some, into JSON types.

    Args:
        value: What is written.
        kind: Its type, where that is not the class itself, such as ``list[Row]``.
    """
    return _adapter(kind or type(value)).dump_python(value, mode="json", by_alias=True)


@dataclass(frozen=True)
class Rows(Generic[T]):
    """A JSONL file in which every line is a dataclass of one kind."""

    path: Path
    kind: type[T]

    def exists(self) -> bool:
        """Tell whether the file has been written."""
        return self.path.exists()

    def read(self) -> list[T]:
        """Read all rows."""
        adapter = _adapter(self.kind)
        with self.path.open(encoding="utf-8") as file:
            return [adapter.validate_json(line, **_EXACTLY) for line in file]

    def write(self, rows: Iterable[T]) -> None:
        """Write all rows; a reader sees the old file or the new one."""
        lines = (json.dumps(to_json(row, self.kind), ensure_ascii=False) + "\n" for row in rows)
        with replacing(self.path) as scratch, scratch.open("w", encoding="utf-8") as file:
            file.writelines(lines)


@dataclass(frozen=True)
class Document(Generic[T]):
    """A JSON file that holds one dataclass, or a list of some."""

    path: Path
    kind: Any

    def exists(self) -> bool:
        """Tell whether the file has been written."""
        return self.path.exists()

    def read(self) -> T:
        """Read it."""
        value: T = _adapter(self.kind).validate_json(self.path.read_bytes(), **_EXACTLY)
        return value

    def write(self, value: T) -> None:
        """Write it with sorted keys; a reader sees the old file or the new one."""
        write_json(self.path, to_json(value, self.kind))
