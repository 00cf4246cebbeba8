"""The loop that brings a target up to date."""

from __future__ import annotations

import gc
import logging
import platform
import shutil
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from cai import interrupt, parallel
from cai.config import Config
from cai.errors import UserError
from cai.pipeline.finite import check_finite
from cai.pipeline.mend import mend
from cai.pipeline.plan import Step
from cai.pipeline.stage import Job, Result, result_name
from cai.pipeline.store import Store
from cai.tracking import Tracker, Version, track

log = logging.getLogger(__name__)

Done = dict[str, Result]
"""Finished results by the name of their stage."""


def execute(steps: Iterable[Step], config: Config, store: Store, folder: Path) -> Result:
    """Make what is missing, upstream first, and return the result of the last step.

    Args:
        steps: A plan.
        config: Says how stages run.
        store: Where results live.
        folder: Folder of this run, for logs, metrics and the tracker's files.
    """
    done: Done = {}
    bring = _bring_up_to_date if parallel.is_global_zero() else _follow
    for step in steps:
        done[step.stage.name] = bring(step, config, store, done, folder)
    return done[step.stage.name]


def _bring_up_to_date(step: Step, config: Config, store: Store, done: Done, folder: Path) -> Result:
    name = step.stage.name
    with store.lock(name, step.key):
        if found := store.find(name, step.key) or store.sealed(name, step.key):
            log.info("%s: reusing %s", name, found.name)
            return cast(Result, parallel.broadcast(found))
        workspace = store.partial(name, step.key)
        log.info("%s: %s %s", name, "resuming" if workspace.exists() else "making", workspace.stem)
        mend(workspace)
        parallel.broadcast(None)
        started = time.monotonic()
        with track(config.tracking, name, folder, _settings(step, done)) as tracker:
            interrupt.check()
            with parallel.together(step.stage.shared(step.settings)):
                parallel.all_gather("ready")  # the others have copied the workspace
                job = Job(config.hardware, config.trainer, tracker, config.sampler)
                _run(step, done, workspace, job)
            gc.collect()  # a model is full of cycles, and the next stage loads its own
            seconds = time.monotonic() - started
            made = {"seconds": round(seconds, 1), **environment(), **job.facts}
            check_finite(workspace)
            result = store.commit(name, step.key, step.recipe, made)
            tracker.artifact(_version(result), [_version(done[need]) for need in step.inputs])
    log.info("%s: done in %.0f s", name, seconds)
    return cast(Result, parallel.broadcast(result))


def _follow(step: Step, config: Config, store: Store, done: Done, folder: Path) -> Result:
    """Do a share of what the leader makes, in a copy of its workspace that is thrown away.

    The copy holds what a killed run had finished, so both go on from the same point.
    """
    name = step.stage.name
    if found := parallel.broadcast(None):
        _visible(found.path)
        return cast(Result, found)
    if step.stage.shared(step.settings):
        workspace = folder / name
        shutil.copytree(_visible(store.partial(name, step.key)), workspace)
        with parallel.together(shared=True):
            parallel.all_gather("ready")
            tracker = Tracker(name, folder)
            job = Job(config.hardware, config.trainer, tracker, config.sampler)
            _run(step, done, workspace, job)
        gc.collect()
        shutil.rmtree(workspace)
    return cast(Result, parallel.broadcast(None))


def _visible(folder: Path) -> Path:
    """Return the leader's folder, which a process of another node may not see."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not on this node: set outputs= to a folder that all share")
    return folder


def _run(step: Step, done: Done, workspace: Path, job: Job) -> None:
    """Run a stage on typed settings, inputs and output."""
    inputs = step.stage.handed({need: done[need] for need in step.inputs})
    result = step.stage.result(step.stage.name, step.key, workspace)
    step.stage.run(step.settings, inputs, result, job)


def _settings(step: Step, done: Done) -> dict[str, Any]:
    """Return the settings of a step and of all that came before it, for the tracker."""
    settings: dict[str, Any] = {}
    for result in done.values():
        settings |= result.record()["recipe"]["settings"]
    settings |= step.recipe["settings"]
    return settings


def _version(result: Result) -> Version:
    """Describe a result to the tracker."""
    recipe = result.record()["recipe"]
    metadata = {
        "stage": result.stage,
        "fingerprint": result.fingerprint,
        "inputs": [result_name(stage, key) for stage, key in recipe["inputs"].items()],
        "content": recipe["content"],
    }
    return Version(result.name, result.stage, result.path, metadata)


def environment() -> dict[str, str]:
    """Return what a result may depend on besides its settings."""
    packages = ("torch", "transformers", "peft", "lightning")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
