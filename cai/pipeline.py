"""The table of stages, what each needs and reads, and the loop that brings a target up to date."""

from __future__ import annotations

import gc
import hashlib
import importlib
import logging
import platform
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from cai import interrupt, parallel
from cai.artifacts import Artifact, Store, fingerprint
from cai.config import Config, Labels, RecipeConfig
from cai.errors import UserError
from cai.tracking import Tracker, track

log = logging.getLogger(__name__)

HOW = frozenset({"hardware", "trainer", "tracking", "stage", "outputs"})
"""Nodes that may change how a stage runs and never what it makes: seen by all, hashed by none."""


def _ai_chain(recipe: RecipeConfig, *stages: str) -> tuple[str, ...]:
    """Return the stages of the supervised and feedback phases that a recipe uses."""
    used = {
        "revise": recipe.labels is Labels.ai or recipe.start.value == "sft",
        "sft": recipe.labels is Labels.ai or recipe.start.value == "sft",
        "feedback": recipe.labels is Labels.ai,
    }
    return tuple(stage for stage in stages if used.get(stage, True))


@dataclass(frozen=True)
class Stage:
    """A step of the method.

    Attributes:
        name: Also names its module in ``cai.stages``, its file in conf/stage and its config node.
        reads: Config nodes that it is hashed on; it is handed no other.
        needs: Stages whose results it reads, which may depend on the recipe.
        version: Raise it when the same settings should give another result.
        shared: Whether several processes can do it together; what asks a server can't.
    """

    name: str
    reads: frozenset[str]
    needs: Callable[[RecipeConfig], tuple[str, ...]]
    version: int = 1
    shared: Callable[[Config], bool] = lambda config: True


def _stage(
    name: str, reads: str, needs: Callable[[RecipeConfig], tuple[str, ...]], **more: Any
) -> Stage:
    return Stage(name, frozenset({*reads.split(), name, "seed"}), needs, **more)


def _local_judge(config: Config) -> bool:
    return config.feedback is not None and not config.feedback.endpoint.used


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        _stage("helpful", "model constitution data", lambda r: ()),
        _stage("revise", "model constitution data", lambda r: ("helpful",)),
        _stage("sft", "model data", lambda r: ("helpful", "revise")),
        _stage(
            "feedback",
            "model constitution data",
            lambda r: ("helpful", "sft"),
            shared=_local_judge,
        ),
        _stage("pm", "model data recipe", lambda r: ("helpful", *_ai_chain(r, "feedback"))),
        _stage("rl", "model data recipe", lambda r: (r.start.value, "pm")),
        _stage(
            "evaluate",
            "model constitution data recipe",
            lambda r: ("helpful", *_ai_chain(r, "revise", "sft", "feedback"), "pm", "rl"),
        ),
    )
}


class State(Enum):
    """What bringing a stage up to date means."""

    run = "run"
    resume = "resume"
    reuse = "reuse"


@dataclass(frozen=True)
class Step:
    """One stage of a plan."""

    stage: Stage
    recipe: dict[str, Any]
    key: str
    inputs: tuple[str, ...]
    state: State


def plan(config: Config, store: Store) -> list[Step]:
    """List what the target needs, upstream first; every name is known before anything runs."""
    if config.stage not in STAGES:
        raise UserError(f"stage={config.stage} is unknown: use one of {', '.join(STAGES)}")
    steps: dict[str, Step] = {}
    _add_steps(config.stage, config, store, steps)
    return list(steps.values())


def _add_steps(name: str, config: Config, store: Store, steps: dict[str, Step]) -> None:
    if name in steps:
        return
    stage = STAGES[name]
    needs = stage.needs(config.recipe)
    for need in needs:
        _add_steps(need, config, store, steps)
    recipe = {
        "stage": name,
        "version": stage.version,
        "settings": {node: _plain(getattr(config, node)) for node in sorted(stage.reads)},
        "content": _content(config, stage.reads),
        "inputs": {need: steps[need].key for need in needs},
    }
    key = fingerprint(recipe)
    state = State.run
    if store.find(name, key):
        state = State.reuse
    elif store.partial(name, key).exists():
        state = State.resume
    steps[name] = Step(stage, recipe, key, needs, state)


def execute(steps: Iterable[Step], config: Config, store: Store, folder: Path) -> Artifact:
    """Make what is missing, upstream first, and return the result of the last step.

    Args:
        steps: A plan.
        config: The whole config.
        store: Where results live.
        folder: Folder of this run, for logs, metrics and the tracker's files.
    """
    done: dict[str, Artifact] = {}
    bring = _bring_up_to_date if parallel.is_global_zero() else _follow
    for step in steps:
        done[step.stage.name] = bring(step, config, store, done, folder)
    return done[step.stage.name]


def _bring_up_to_date(
    step: Step, config: Config, store: Store, done: dict[str, Artifact], folder: Path
) -> Artifact:
    name = step.stage.name
    with store.lock(name, step.key):
        if found := store.find(name, step.key):
            log.info("%s: reusing %s", name, found.name)
            return cast(Artifact, parallel.broadcast(found))
        workspace = store.partial(name, step.key)
        log.info("%s: %s %s", name, "resuming" if workspace.exists() else "making", workspace.stem)
        workspace.mkdir(exist_ok=True)
        parallel.broadcast(None)
        inputs = {need: done[need] for need in step.inputs}
        started = time.monotonic()
        with track(config.tracking, name, folder, _settings(step, done)) as tracker:
            module = importlib.import_module(f"cai.stages.{name}")
            interrupt.check()
            with parallel.together(step.stage.shared(config)):
                parallel.all_gather("ready")  # the others have copied the workspace
                module.run(visible_to(step.stage, config), inputs, workspace, tracker)
            gc.collect()  # a model is full of cycles, and the next stage loads its own
            seconds = time.monotonic() - started
            made = {"seconds": round(seconds, 1), **environment()}
            artifact = store.commit(name, step.key, step.recipe, made)
            tracker.artifact(artifact, list(inputs.values()))
    log.info("%s: done in %.0f s", name, seconds)
    return cast(Artifact, parallel.broadcast(artifact))


def _follow(
    step: Step, config: Config, store: Store, done: dict[str, Artifact], folder: Path
) -> Artifact:
    """Do a share of what the leader makes, in a copy of its workspace that is thrown away.

    The copy holds what a killed run had finished, so both go on from the same point.
    """
    name = step.stage.name
    if found := parallel.broadcast(None):
        return cast(Artifact, found)
    if step.stage.shared(config):
        workspace = folder / name
        shutil.copytree(store.partial(name, step.key), workspace)
        inputs = {need: done[need] for need in step.inputs}
        module = importlib.import_module(f"cai.stages.{name}")
        with parallel.together(shared=True):
            parallel.all_gather("ready")
            module.run(visible_to(step.stage, config), inputs, workspace, Tracker(name, folder))
        gc.collect()
        shutil.rmtree(workspace)
    return cast(Artifact, parallel.broadcast(None))


def _settings(step: Step, done: dict[str, Artifact]) -> dict[str, Any]:
    """Return the settings of a step and of all that came before it, for the tracker."""
    settings: dict[str, Any] = {}
    for artifact in done.values():
        settings |= artifact.record()["recipe"]["settings"]
    settings |= step.recipe["settings"]
    return settings


def visible_to(stage: Stage, config: Config) -> Config:
    """Return the config with every node removed that the stage is not hashed on."""
    hidden = {f.name: None for f in fields(config) if f.name not in stage.reads | HOW}
    return replace(config, **hidden)  # type: ignore[arg-type]


def environment() -> dict[str, str]:
    """Return what a result may depend on besides its settings."""
    packages = ("torch", "transformers", "peft", "lightning")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def _plain(value: Any) -> Any:
    """Turn a config node into JSON types."""
    if is_dataclass(value) and not isinstance(value, type):
        return {key: _plain(item) for key, item in asdict(value).items()}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.value if isinstance(value, Enum) else value


def _content(config: Config, reads: frozenset[str]) -> dict[str, str]:
    """Digest the local files that the nodes point to, so that editing one is noticed."""
    builtin = Path(__file__).parent / "data" / "builtin"
    folders = {
        "data": config.data.folder
        or (str(builtin) if config.data.source.value == "builtin" else ""),
        "model": config.model.path if config.model.source.value == "folder" else "",
        "constitution": config.constitution.folder or "",
        "evaluate": (config.evaluate and config.evaluate.paper_tests) or "",
    }
    digests = {
        node: digest_of_folder(Path(folder), f"{node} folder")
        for node, folder in folders.items()
        if node in reads and folder
    }
    if config.evaluate and "evaluate" in reads:
        for key in ("human_choices", "ratings"):
            if file := getattr(config.evaluate, key):
                digests[f"evaluate.{key}"] = digest_of_file(Path(file), f"evaluate.{key}")
    if config.pm and "pm" in reads and config.pm.pretrain:
        digests["pm.pretrain"] = digest_of_file(Path(config.pm.pretrain), "pm.pretrain")
    return digests


def digest_of_file(path: Path, key: str) -> str:
    """Digest the content of a file.

    Raises:
        UserError: If it can't be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{key}={path} can't be read: {error.strerror}") from error


def digest_of_folder(folder: Path, key: str) -> str:
    """Digest names, sizes and contents of the files below a folder.

    Raises:
        UserError: If there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{key} {str(folder)!r} does not exist: give the path of a folder")
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
