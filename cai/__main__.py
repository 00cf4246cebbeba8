"""``python -m cai``: compose the config, type it, build the target stage, say where the result is.

Heavy libraries are imported after the config has been accepted, so that ``--help`` and a
misspelt key answer at once.
"""

from __future__ import annotations

import errno
import gc
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from cai import followers, launchers, parallel, sweep
from cai.command import check_room, command
from cai.composition import CONF, schema, typed
from cai.errors import UserError
from cai.sentences import explain, sentence_of
from cai.single import run_once
from cai.terminal import one_line, say

log = logging.getLogger("cai")

Objectives = tuple[float, float, float]
"""Harmlessness Elo, helpfulness Elo and evasiveness of the policy."""


def _launch(cfg: DictConfig) -> Objectives | None:
    """Run one job; return what a search would optimise."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        config = sweep.accepted.pop() if sweep.accepted else typed(cfg)
        counted = launchers.processes(config.hardware.devices, config.hardware.num_nodes)
        if counted.world_size > 1 and HydraConfig.get().mode == RunMode.MULTIRUN:
            raise UserError(
                "several processes work on one run at a time: start the arms one by one, or leave "
                "out torchrun, srun and hardware.devices"
            )
        sweep.describe_run(config.tracking)
        log.info("stage=%s model=%s scale=%s", config.stage, config.model.name, config.scale.name)
        gc.enable()
        check_room()
        from cai.run import run

        run(config, folder)
        return sweep.objectives(folder)
    except Exception as error:
        sentence = sentence_of(error)
        if sentence is None:
            raise
        sweep.fail(sentence)
    return None


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def launch(cfg: DictConfig) -> Objectives | None:
    """Run one job, a single run or an arm of a sweep; an arm that fails does not end the others."""
    if HydraConfig.get().mode is not RunMode.MULTIRUN:
        return _launch(cfg)
    try:
        return _launch(cfg)
    except Exception as error:
        log.exception("this arm failed")
        first = (str(error).strip().splitlines() or ["no message"])[0]
        sweep.fail(f"{type(error).__name__}: {first}")
        return None


@contextmanager
def _own_folder() -> Iterator[None]:
    """Keep the log and the scratch files of all processes but the leader out of ``outputs/``."""
    if parallel.is_global_zero():
        yield
        return
    logging.disable(logging.WARNING)  # the leader says it all
    with followers.scratch_folder() as folder:
        if followers.was_started():
            followers.follow()  # before libraries are loaded, which takes long on a busy machine
        sys.argv += [f"hydra.run.dir={folder}", "hydra/job_logging=none"]
        yield


LONG = (
    "--help", "--hydra-help", "--version", "--cfg", "--resolve", "--package", "--run", "--multirun",
    "--shell-completion", "--config-path", "--config-name", "--config-dir", "--info",
    "--experimental-rerun",
)  # fmt: skip
"""Hydra's flags as it documents them; a beginning that is one flag's alone will do."""
SHORT = ("-h", "-c", "-p", "-r", "-m", "-sc", "-i")
"""The same in short; some take a value that may follow at once."""
FOLDERS = ("outputs=", "hydra.run.dir=", "hydra.sweep.dir=")
"""Words that name a folder which Hydra makes."""
DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


def _not_writable(error: OSError) -> str:
    """Explain why Hydra could not make the folder of a run; any other error is raised again."""
    if error.errno not in DENIED and (said := sentence_of(error)):
        return said
    blocked = Path(error.filename).resolve() if error.filename else None
    words = ["outputs=outputs", *(word for word in sys.argv if word.startswith(FOLDERS))]
    for given in reversed(words):
        key, _, name = given.partition("=")
        folder = Path(name).resolve()
        if blocked and (blocked.is_relative_to(folder) or folder.is_relative_to(blocked)):
            return (
                f"{given} can't be written to ({error.strerror}: {error.filename}): set {key}= to "
                "a folder that you may write"
            )
    raise error


def main() -> int:
    """Return the exit code: 0, 1 for a mistake in the config or the data, 2 for usage."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here instead of being printed by Hydra
    if not CONF.is_dir():
        say(f"{CONF} is missing: install the package again")
        return 1
    return command(_main)


def _unknown_flag() -> str | None:
    """Return a flag that Hydra does not know: it would repeat all words, also an address."""
    for word in sys.argv[1:]:
        flag = word.partition("=")[0]
        known = any(each.startswith(flag) for each in LONG) or flag.startswith(SHORT)
        if flag.startswith("-") and not (known and flag.strip("-")):
            return word
    return None


def _main() -> int:
    if flag := _unknown_flag():
        say(f"{one_line(flag.partition('=')[0], 40)} is no flag: python -m cai --help lists them")
        return 2
    try:
        schema()
        with _own_folder():
            if not run_once(_launch, sys.argv[1:]):
                launch()
    except sweep.Refused as refused:
        cause = refused.__cause__
        sweep.failures.append(_not_writable(cause) if isinstance(cause, OSError) else str(refused))
    except OSError as error:
        sweep.failures.append(_not_writable(error))
    except Exception as error:
        if HydraConfig.initialized() and not isinstance(error, HydraException):
            raise  # it was not in the words that were given
        sweep.failures.append(explain(error))
    for sentence in sweep.failures:
        say(sentence)
    return 1 if sweep.failures else 0


if __name__ == "__main__":
    gc.disable()  # until the first line: composing makes many objects and hardly any garbage
    sys.exit(main())
