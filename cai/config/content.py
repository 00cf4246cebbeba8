"""Which files a setting points to, said where the setting is declared.

A field made by ``reads_file`` or ``reads_folder`` is hashed by what lies at the path, too, so that
editing a file makes a new result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import Field, dataclass, field, fields, is_dataclass
from enum import Enum
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import MISSING

from cai.errors import UserError

T = TypeVar("T")

PACKAGED = "pkg://"
"""What a path begins with that lies in a Python package."""
_CONTENT = "content"

Where = Callable[[Any], Iterable[str | Path | None]]
"""Finds the paths in the node that holds the field; None where nothing is read."""


class Kind(Enum):
    """What lies at a path."""

    file = "file"
    folder = "folder"


@dataclass(frozen=True)
class Content:
    """A path that a setting points to."""

    key: str
    path: Path
    kind: Kind


def reads_file(default: Any = MISSING) -> Any:
    """Declare a setting that is the path of a file, or null."""
    return field(default=default, metadata={_CONTENT: (Kind.file, None)})


def reads_folder(default: Any = MISSING, where: Where | None = None) -> Any:
    """Declare a setting that is the path of a folder.

    Args:
        default: Of the setting.
        where: Finds the folders, where that is not simply the setting's value.
    """
    return field(default=default, metadata={_CONTENT: (Kind.folder, where)})


def located(path: str) -> Path:
    """Find a path; ``pkg://package/folder`` lies in an installed Python package.

    Raises:
        UserError: If there is no such package.
    """
    if not path.startswith(PACKAGED):
        return Path(path)
    package, _, inner = path.removeprefix(PACKAGED).partition("/")
    try:
        return Path(str(files(package).joinpath(inner)))
    except ModuleNotFoundError as error:
        raise UserError(f"{path} is in no installed package: pip install {package}") from error


def contents(node: object, prefix: str) -> Iterator[Content]:
    """Yield every path that a node and the nodes in it point to.

    Args:
        node: A node of the config; anything else points nowhere.
        prefix: Its name.
    """
    if not is_dataclass(node) or isinstance(node, type):
        return
    for item in fields(node):
        key, value = f"{prefix}.{item.name}", getattr(node, item.name)
        if _CONTENT in item.metadata:
            yield from _content(node, item, key)
        else:
            yield from contents(value, key)


def nodes_in(node: object, kind: type[T], prefix: str = "") -> Iterator[tuple[str, T]]:
    """Yield the nodes of a kind in a node of the config, itself included, with their keys."""
    if not is_dataclass(node) or isinstance(node, type):
        return
    if isinstance(node, kind):
        yield prefix, node
    for item in fields(node):
        key = f"{prefix}.{item.name}" if prefix else item.name
        yield from nodes_in(getattr(node, item.name), kind, key)


def _content(node: object, item: Field[Any], key: str) -> Iterator[Content]:
    kind, where = item.metadata[_CONTENT]
    paths = list(where(node)) if where else [getattr(node, item.name)]
    for n, path in enumerate(paths):
        if path and path != MISSING:
            yield Content(f"{key}.{n}" if n else key, located(str(path)), kind)
