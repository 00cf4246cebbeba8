"""metrics.jsonl always; Weights & Biases as a mirror that may fail without stopping a run."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cai.config import TrackingConfig, TrackingMode
from cai.errors import UserError

log = logging.getLogger(__name__)

TABLE_ROWS = 64
"""Rows of a table that go to the mirror; the artifact holds them all."""
LONGEST_TAG, LONGEST_NAME = 64, 128
"""Characters that W&B accepts."""
CACHE = "XDG_CACHE_HOME"
LARGEST_FILE = 64 * 2**20
"""Bytes of a file that goes to the mirror with its artifact; larger ones are references."""


@dataclass(frozen=True)
class Version:
    """A finished result as the tracker knows it: its content has a name, and so a version."""

    name: str
    kind: str
    path: Path
    metadata: Mapping[str, Any]


class Mirror:
    """A W&B run. The first call that fails is reported, and from then on there are none."""

    def __init__(self, run: Any) -> None:
        """Wrap an open run."""
        self._run: Any | None = run

    def call(self, action: Callable[[Any], object]) -> None:
        """Do something with the run, if it is still sound."""
        if self._run is None:
            return
        import wandb
        from wandb.sdk.mailbox import HandleAbandonedError

        gone = (ConnectionError, HandleAbandonedError)
        try:
            action(self._run)
        # What W&B raises when its process, its disk or its network is gone.
        except (wandb.errors.Error, *gone, OSError, ValueError, TypeError, RuntimeError) as error:
            reason = str(error) or type(error).__name__
            log.warning("W&B failed (%s); the run goes on and metrics.jsonl is complete", reason)
            self._run = None
            if isinstance(error, gone):
                with suppress(*gone):
                    wandb.teardown()  # of what is left, so that the next stage starts anew


class Tracker:
    """Records one stage run."""

    def __init__(self, stage: str, folder: Path, mirror: Mirror | None = None) -> None:
        """Append to ``folder/metrics.jsonl``, and to the mirror if there is one."""
        self.stage = stage
        self._path = folder / "metrics.jsonl"
        self._mirror = mirror

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record numbers of one step under ``stage/name``; what is not finite becomes null."""
        row = {f"{self.stage}/step": step}
        named: dict[str, float | None] = {
            f"{self.stage}/{key}": value if math.isfinite(value) else None
            for key, value in values.items()
        }
        line = json.dumps({"stage": self.stage, **row, **named}, allow_nan=False)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        if self._mirror is not None:
            self._mirror.call(lambda run: run.log({**row, **named}))

    def table(self, name: str, rows: Sequence[Mapping[str, Any]], step: int = 0) -> None:
        """Record rows of text and numbers, such as transcripts."""
        if self._mirror is None or not rows:
            return

        def write(run: Any) -> None:
            import wandb

            columns: list[str | int] = list(rows[0])
            cells = [
                [_cell(row.get(str(column))) for column in columns] for row in rows[:TABLE_ROWS]
            ]
            table = wandb.Table(columns=columns, data=cells)
            run.log({f"{self.stage}/{name}": table, f"{self.stage}/step": step})

        self._mirror.call(write)

    def artifact(self, artifact: Version, inputs: Sequence[Version]) -> None:
        """Record a finished result and, as its lineage, what it was made from."""
        if self._mirror is None:
            return

        def write(run: Any) -> None:
            import wandb

            # W&B records the use of an artifact online only; the metadata tell it in any case.
            # With the same files it is the same version, also where its maker was not tracked.
            if not run.offline:
                for source in inputs:
                    run.use_artifact(_described(wandb, source))
            run.log_artifact(_described(wandb, artifact))

        self._mirror.call(write)


@contextmanager
def track(
    config: TrackingConfig, stage: str, folder: Path, settings: Mapping[str, Any]
) -> Iterator[Tracker]:
    """Open the records of one stage run.

    Args:
        config: Whether and where W&B mirrors them.
        stage: Becomes the job type.
        folder: Of metrics.jsonl and of W&B's own files.
        settings: Of this stage and those before it; the run's config.

    Raises:
        UserError: If W&B was asked to work online and can't start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if config.mode is TrackingMode.off:
        yield Tracker(stage, folder)
        return
    mirror = Mirror(_start_if_possible(config, stage, folder, settings))
    mirror.call(lambda r: r.define_metric(f"{stage}/*", step_metric=f"{stage}/step"))
    failed = True
    try:
        yield Tracker(stage, folder, mirror)
        failed = False
    finally:
        mirror.call(lambda r: r.finish(exit_code=int(failed)))


def _start_if_possible(
    config: TrackingConfig, stage: str, folder: Path, settings: Mapping[str, Any]
) -> Any | None:
    """Open a W&B run; one that nobody asked for is done without where it can't start."""
    try:
        return _start(config, stage, folder, settings)
    # A home, a user, a socket or a process that it can't do without, and its own errors.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        if config.mode is TrackingMode.online:
            raise UserError(
                f"tracking.mode=online: W&B could not start ({reason}); log in with 'wandb login', "
                "or use tracking=offline or tracking=off"
            ) from error
        log.warning(
            "tracking.mode=offline: W&B could not start (%s); the run goes on without it, and "
            "metrics.jsonl has all numbers",
            reason,
        )
        return None


def _start(config: TrackingConfig, stage: str, folder: Path, settings: Mapping[str, Any]) -> Any:
    import wandb

    quiet = wandb.Settings(
        silent=True,
        console="off",
        disable_git=not config.code,
        disable_code=not config.code,
        save_code=config.code,
        x_disable_stats=not config.system,
        x_disable_meta=not config.system,
        init_timeout=30,
    )
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    with _place_for_logs(folder):
        return wandb.init(
            project=config.project,
            entity=config.entity,
            group=config.group,
            tags=[tag[:LONGEST_TAG] for tag in config.tags],
            name=" ".join([stage, *config.tags])[:LONGEST_NAME],
            job_type=stage,
            mode="online" if config.mode is TrackingMode.online else "offline",
            dir=str(folder),
            config={**settings, "arm": config.arm},
            settings=quiet,
            reinit="finish_previous",
            # An agent of W&B names the run of its arm: every stage goes into that one.
            resume="allow" if "WANDB_RUN_ID" in os.environ else None,
        )


@contextmanager
def _place_for_logs(folder: Path) -> Iterator[None]:
    """Give W&B's process a folder for its log; where there is no home, it fills the terminal."""
    if {"HOME", CACHE} & os.environ.keys():
        yield
        return
    os.environ[CACHE] = str(folder / "wandb" / "cache")
    try:
        yield
    finally:
        del os.environ[CACHE]


def _described(wandb: Any, artifact: Version) -> Any:
    described = wandb.Artifact(
        name=artifact.name, type=artifact.kind, metadata=dict(artifact.metadata)
    )
    for path in sorted(p for p in artifact.path.rglob("*") if p.is_file()):
        name = path.relative_to(artifact.path).as_posix()
        if path.stat().st_size <= LARGEST_FILE:
            described.add_file(str(path), name=name, policy="immutable")  # no second copy on disk
        else:
            described.add_reference(path.resolve().as_uri(), name=name)
    return described


def _cell(value: Any) -> Any:
    return value if isinstance(value, str | int | float | None) else json.dumps(value)
