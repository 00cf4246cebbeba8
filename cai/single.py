"""A single run, composed once.

``hydra.main`` composes a config twice, the first time to learn no more than whether it is a sweep.
Most commands are plain words that are none: Hydra's Compose API takes these, and the function that
its launchers run jobs with does the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import configure_log, run_job
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from cai.composition import CONF
from cai.sweep import Sweep

JOB = "__main__"
"""The job's name, as ``hydra.main`` takes it from ``python -m cai``."""


def run_once(task: TaskFunction, words: Sequence[str]) -> bool:
    """Run one job, if these words ask for that and for nothing else.

    Args:
        task: What ``hydra.main`` would call.
        words: Of the command line, without the name of the program.

    Returns:
        Whether it was run. If not, nothing was done and ``hydra.main`` should see to it: these are
        flags, a sweep, callbacks of other projects, or words of which it can say what is wrong.
    """
    if any(word.startswith("-") for word in words):
        return False
    with initialize_config_dir(str(CONF), job_name=JOB, version_base="1.3"):
        config = _composed(words)
        if config is None:
            return False
        _run(task, config)
    return True


def _composed(words: Sequence[str]) -> DictConfig | None:
    try:
        config = compose("config", [*words], return_hydra_config=True)
    except (HydraException, OmegaConfBaseException):
        return None
    hydra = config.hydra
    plain = not hydra.verbose and set(hydra.callbacks) == {"sweep"}
    if not plain or hydra.mode not in {None, RunMode.RUN}:
        return None
    if hydra.mode is None:  # as hydra.main writes it down
        hydra.mode = RunMode.RUN
        hydra.overrides.hydra.append("hydra.mode=RUN")
    return config


def _run(task: TaskFunction, config: DictConfig) -> None:
    configure_log(config.hydra.hydra_logging)
    callbacks: Any = Sweep()  # alone, it can stand for Hydra's list of them
    callbacks.on_run_start(config)
    context = HydraContext(GlobalHydra.instance().config_loader(), callbacks)
    job = run_job(task, config, "hydra.run.dir", None, context)
    _ = job.return_value  # raises what the job did
