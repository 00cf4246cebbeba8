"""What bringing a target up to date takes: every result is named before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from enum import Enum
from typing import Any

from cai.config import Config
from cai.config.content import Kind, contents
from cai.errors import UserError
from cai.files import digest_of_file, digest_of_folder
from cai.pipeline.stage import Stage
from cai.pipeline.store import Store, fingerprint

Table = Mapping[str, Stage[Any, Any, Any]]
"""Stages by name."""


class State(Enum):
    """What bringing a stage up to date means."""

    run = "run"
    resume = "resume"
    reuse = "reuse"


@dataclass(frozen=True)
class Step:
    """One stage of a plan.

    Attributes:
        stage: Which one.
        settings: What it is hashed on, of the class that it asks for.
        recipe: The same as JSON types, with the digests of files and the results it is made from.
        key: The recipe's fingerprint.
        inputs: Stages whose results it reads.
        state: Whether there is anything to do.
    """

    stage: Stage[Any, Any, Any]
    settings: object
    recipe: dict[str, Any]
    key: str
    inputs: tuple[str, ...]
    state: State


def plan(config: Config, store: Store, table: Table) -> list[Step]:
    """List what the target needs, upstream first.

    Raises:
        UserError: If the target, or something that it needs, is not in the table.
    """
    if config.stage not in table:
        raise UserError(f"stage={config.stage} is unknown: use one of {', '.join(table)}")
    steps: dict[str, Step] = {}
    _add_steps(config.stage, config, (store, table), steps)
    return list(steps.values())


def _add_steps(
    name: str, config: Config, known: tuple[Store, Table], steps: dict[str, Step]
) -> None:
    if name in steps:
        return
    store, table = known
    stage = table[name]
    settings = stage.read(config)
    needs = stage.needed(settings)
    for need in needs:
        if need not in table:
            raise UserError(
                f"stage {name!r} needs {need!r}, which no stage makes: the stages are "
                f"{', '.join(table)}"
            )
        _add_steps(need, config, known, steps)
    recipe = {
        "stage": name,
        "version": stage.version,
        "settings": {node: to_plain(value) for node, value in _nodes(settings)},
        "content": {**digests(settings), **stage.marks(settings)},
        "inputs": {need: steps[need].key for need in needs},
    }
    key = fingerprint(recipe)
    state = State.run
    if store.find(name, key):
        state = State.reuse
    elif store.partial(name, key).exists():
        state = State.resume
    steps[name] = Step(stage, settings, recipe, key, needs, state)


def digests(settings: object) -> dict[str, str]:
    """Digest what lies at the paths that settings point to, by key.

    Raises:
        UserError: If a file or folder can't be read.
    """
    digest = {Kind.file: digest_of_file, Kind.folder: digest_of_folder}
    return {
        content.key: digest[content.kind](content.path, content.key)
        for name, node in _nodes(settings)
        for content in contents(node, name)
    }


def _nodes(settings: Any) -> list[tuple[str, object]]:
    return sorted((field.name, getattr(settings, field.name)) for field in fields(settings))


def to_plain(value: Any) -> Any:
    """Turn a config node into JSON types."""
    if is_dataclass(value) and not isinstance(value, type):
        return {key: to_plain(item) for key, item in asdict(value).items()}
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value.value if isinstance(value, Enum) else value
