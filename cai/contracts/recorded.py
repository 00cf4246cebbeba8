"""The settings that a finished result was made with, read back from its record."""

from __future__ import annotations

from dataclasses import is_dataclass
from typing import Any, TypeVar, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cai.errors import UserError
from cai.pipeline.stage import RECORD, Result

S = TypeVar("S")


def recorded(result: Result, kind: type[S]) -> S:
    """Read the settings of a result as the class that its stage asks for.

    Raises:
        UserError: If they were written by another version.
    """
    hints = get_type_hints(kind)
    return kind(**{name: recorded_node(result, name, hint) for name, hint in hints.items()})


def recorded_node(result: Result, name: str, kind: Any) -> Any:
    """Read one node of the settings; a plain value is its own.

    Raises:
        UserError: If it is not there, or was written by another version.
    """
    path = result.path / RECORD
    try:
        settings = result.record()["recipe"]["settings"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} can't be read: make it again with stage={result.stage}") from error
    try:
        value = settings[name]
        if not is_dataclass(kind):
            return value
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), value))
    except (OmegaConfBaseException, KeyError, TypeError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"{path} describes {name} in a way that this version can't read ({reason}): use the "
            f"version that wrote it, or make it again with stage={result.stage}"
        ) from error
