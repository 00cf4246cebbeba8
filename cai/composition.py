"""From conf/ to a typed Config, and from Hydra's errors to one sentence."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, cast, get_type_hints

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cai.config import Config
from cai.errors import UserError

CONF = Path(__file__).resolve().parents[1] / "conf"
NODES = ("helpful", "revise", "sft", "feedback", "pm", "rl", "evaluate")

ConfigStore.instance().store(name="schema", node=Config)


def typed(cfg: DictConfig) -> Config:
    """Check types and ranges and leave Hydra's world; stages that are not in the chain are None."""
    for node in NODES:
        if OmegaConf.is_missing(cfg, node):
            cfg[node] = None
    for key in cfg:
        if key not in Config.__dataclass_fields__:
            raise UserError(_unknown_key(str(key)))
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise UserError(f"{missing[0]} has no value: give one on the command line or in conf/")
    return cast(Config, OmegaConf.to_object(cfg))


def explain(error: BaseException) -> str:
    """Put an error in one sentence that names the key, the value and what is allowed."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, UserError):
            return str(cause)
    text = _one_line(str(causes[0]))
    if found := re.search(r"Could not override '([^']+)'", text):
        return _unknown_key(found.group(1))
    if found := re.search(r"Could not find '([^/']+)/([^']+)'", text):
        group, option = found.groups()
        options = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
        return f"{group}={option} is not there: use one of {', '.join(options)}"
    if found := re.search(r"Error merging override (\S+?)=(.*?)(?: |$)", text):
        return f"{found.group(1)}={found.group(2)} is not allowed: {_reason(causes)}"
    if found := re.search(r"Error parsing override '(.*?)'", text):
        return f"{found.group(1)!r} is not an override: write it as key=value"
    reason = _reason(causes)
    return text if reason in text else f"{text} ({reason})"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _one_line(text: str) -> str:
    kept = [
        line.strip()
        for line in text.splitlines()
        if not re.match(r"\s*(full_key|object_type|reference_type|Config search path)\b", line)
        and "provider=" not in line
    ]
    return " ".join(line for line in kept if line)


def _reason(causes: list[BaseException]) -> str:
    """Return what OmegaConf says about a value: of what type or which options it should be."""
    for cause in causes[1:]:
        if isinstance(cause, OmegaConfBaseException):
            return _one_line(str(cause))
    return _one_line(str(causes[-1]))


def _unknown_key(key: str) -> str:
    known = list(_keys(Config))
    close = difflib.get_close_matches(key, known, n=3, cutoff=0.6)
    advice = f"did you mean {' or '.join(close)}?" if close else "python -m cai --help lists all"
    return f"{key} is not a key of the config: {advice}"


def _keys(node: type[Any], prefix: str = "") -> Iterator[str]:
    """List every key of the schema with its dots."""
    hints = get_type_hints(node)
    for item in fields(node):
        yield prefix + item.name
        hint = hints[item.name]
        inner = next((arg for arg in getattr(hint, "__args__", ()) if is_dataclass(arg)), hint)
        if is_dataclass(inner) and isinstance(inner, type):
            yield from _keys(inner, f"{prefix}{item.name}.")
