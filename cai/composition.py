"""From conf/ to a typed Config, and from Hydra's errors to one sentence."""

from __future__ import annotations

import difflib
import itertools
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, MissingMandatoryValue

from cai.config import (
    ComparisonPrinciple,
    Config,
    ConstitutionConfig,
    HardwareConfig,
    RevisionPrinciple,
    schema_of,
)
from cai.contracts.table import stages
from cai.errors import UserError


def _shipped(name: str) -> Path:
    """Find a folder that an installed package holds, and a checkout has beside it."""
    package = Path(__file__).resolve().parent
    return package / name if (package / name).is_dir() else package.parent / name


CONF, SWEEPS = _shipped("conf"), _shipped("sweeps")

PRINCIPLES = {"revision": RevisionPrinciple, "comparison": ComparisonPrinciple}

HYDRA = "hydra"
"""The node of a config that is Hydra's own; a job is not given it."""
LONGEST = 120
"""Signs of the command line that are repeated in an error."""

Fault = tuple[yaml.Node, str]
"""A place in a YAML file and what is wrong there."""


class ShippedSweeps(SearchPathPlugin):
    """Puts the groups ``sweep`` and ``launch`` behind conf/, wherever the command is run."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the folder of sweeps."""
        search_path.append("cai", str(SWEEPS))


@cache
def schema() -> type[Config]:
    """Return the schema of conf/, with a node for every stage; make it and sweeps known to Hydra.

    Raises:
        UserError: If a stage that another project adds is not sound.
    """
    made = schema_of({name: stage.schema for name, stage in stages().items()})
    node = OmegaConf.structured(made)
    OmegaConf.set_struct(node.trainer.callbacks, False)  # anybody may name callbacks of their own
    ConfigStore.instance().store(name="schema", node=node)
    Plugins.instance().register(ShippedSweeps)
    return made


def typed(cfg: DictConfig) -> Config:
    """Check types and ranges and leave Hydra's world; nodes of stages not in the chain stay out."""
    kind = schema()
    known = set(keys(kind))
    for found in _given(cfg):
        if found not in known:
            raise UserError(unknown_key(found))
    there = set(cfg.keys())
    for item in fields(kind):
        if item.name not in there:
            raise UserError(f"~{item.name} takes out what a run needs: leave it out")
    left_out = {HYDRA, *(name for name in stages() if OmegaConf.is_missing(cfg, name))}
    chosen = [str(key) for key in cfg if key not in left_out]
    try:
        return kind(**{key: _leave(cfg, key) for key in chosen})
    except (MissingMandatoryValue, InterpolationToMissingValueError) as error:
        empty = min(_empty(cfg, chosen))
        raise UserError(
            f"{empty} has no value: give one on the command line or in conf/"
        ) from error


def _empty(cfg: DictConfig, chosen: Iterable[str]) -> Iterator[str]:
    for key in chosen:
        if OmegaConf.is_missing(cfg, key):
            yield key
        elif OmegaConf.is_config(cfg[key]):
            yield from OmegaConf.missing_keys(cfg[key])


def _given(node: Any, prefix: str = "") -> Iterator[str]:
    """List the keys of a composed config, but not what is in those that may hold anything."""
    if OmegaConf.is_list(node):
        for n in range(len(node)):
            yield from _given(node._get_node(n), prefix)
    elif OmegaConf.is_dict(node) and not node._is_missing() and not node._is_none():
        closed = is_dataclass(OmegaConf.get_type(node))
        for name in node if closed or not prefix else ():
            if not prefix and name == HYDRA:
                continue
            key = f"{prefix}.{name}" if prefix else str(name)
            yield key
            yield from _given(node._get_node(name), key)


def _leave(cfg: DictConfig, key: str) -> Any:
    node = cfg[key]
    return OmegaConf.to_object(node) if OmegaConf.is_config(node) else node


def hardware_node(name: str, changes: Sequence[str] = ()) -> HardwareConfig:
    """Compose the node ``hardware`` alone, for a command that runs no stage.

    Args:
        name: A file of conf/hardware.
        changes: Overrides.
    """
    with initialize_config_dir(str(CONF), version_base="1.3"):
        values = compose(overrides=[f"+hardware={name}", *changes]).hardware
    node: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(HardwareConfig), values))
    assert isinstance(node, HardwareConfig)
    return node


def constitution_fault(path: Path) -> str | None:
    """Return the file, the line and the first departure from the schema of a constitution."""
    root = yaml.compose(path.read_text(encoding="utf-8"))
    fault = next(_faults_of_file(root), None) if root else None
    return fault and f"{path}:{fault[0].start_mark.line + 1}: {fault[1]}"


def fault_of_constitution(text: str) -> str | None:
    """Find the line to blame if an error speaks of the file of a constitution."""
    if named := re.match(r"In 'constitution/([^']+)'", text):
        name = named.group(1)
    elif text.startswith("constitution.") and HydraConfig.initialized():
        name = str(HydraConfig.get().runtime.choices["constitution"])
    else:
        return None
    words = [part for word in sys.argv for part in word.split("=", 1)]
    given = [Path(b) for a, b in itertools.pairwise(words) if a in {"--config-dir", "-cd"}]
    paths = [folder / "constitution" / f"{name}.yaml" for folder in (CONF, *given)]
    faults = (constitution_fault(path) for path in paths if path.is_file())
    return next((fault for fault in faults if fault), None)


def _faults_of_file(root: yaml.Node) -> Iterator[Fault]:
    yield from _faults_of_keys(root, ConstitutionConfig, "a constitution")
    values = {key.value: value for key, value in root.value}
    for name, kind in PRINCIPLES.items():
        node = values.get(name)
        if node is None:
            continue
        if not isinstance(node, yaml.SequenceNode):
            yield node, f"{name} should be a list of principles"
        elif not node.value and "folder" not in values:
            yield node, f"{name} is empty: give it at least one principle"
        else:
            yield from _faults_of_list(node, kind, f"a principle of {name}")


def _faults_of_list(node: yaml.Node, kind: type[Any], what: str) -> Iterator[Fault]:
    ids: set[str] = set()
    for item in node.value:
        yield from _faults_of_keys(item, kind, what)
        for key, value in item.value:
            if not isinstance(value, yaml.ScalarNode):
                yield value, f"{key.value!r} of {what} should be a text: put it in quotes"
            elif key.value == "id" and value.value in ids:
                yield value, f"the id {value.value!r} is used twice: ids must be unique"
            ids |= {value.value} if key.value == "id" else set()


def _faults_of_keys(node: yaml.Node, kind: type[Any], what: str) -> Iterator[Fault]:
    known = [item.name for item in fields(kind)]
    if not isinstance(node, yaml.MappingNode):
        yield node, f"{what} should have the keys {', '.join(known)}"
        return
    given = {key.value: key for key, _ in node.value}
    for name, key in given.items():
        if name not in {*known, "defaults"}:
            yield key, f"{what} has no key {name!r}: use {', '.join(known)}"
    for item in fields(kind):
        if item.default == MISSING and item.name not in given and "defaults" not in given:
            yield node, f"{what} lacks the key {item.name!r}"


def unknown_key(key: str) -> str:
    """Say that there is no such key, and which there are that look like it."""
    known = list(keys(schema()))
    close = difflib.get_close_matches(key, known, n=3, cutoff=0.6)
    advice = f"did you mean {' or '.join(close)}?" if close else "python -m cai --help lists all"
    return f"{key} is not a key of the config: {advice}"


def keys(node: type[Any], prefix: str = "") -> Iterator[str]:
    """List every key of the schema with its dots."""
    hints = get_type_hints(node)
    for item in fields(node):
        yield prefix + item.name
        hint = hints[item.name]
        inner = next((arg for arg in getattr(hint, "__args__", ()) if is_dataclass(arg)), hint)
        if is_dataclass(inner) and isinstance(inner, type):
            yield from keys(inner, f"{prefix}{item.name}.")
