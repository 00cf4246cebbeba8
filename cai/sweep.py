"""What a sweep says: at its start what its arms share, at its end which failed, and one report."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from cai.composition import typed
from cai.config import Config, TrackingConfig
from cai.errors import SecretError, UserError
from cai.files import claim, write_text
from cai.pipeline.stage import RESULT
from cai.sentences import explain
from cai.sharing import share
from cai.terminal import plain

log = logging.getLogger("cai")

FAILED = "failed.txt"
"""In the folder of an arm that failed: why, in one sentence. Arms may run in other processes."""
HOW = (
    "dry_run", "experiment", "hydra", "hardware", "launch", "outputs", "sampler", "sweep",
    "tracking",
)  # fmt: skip
"""Keys whose values do not tell one experiment from another."""

SEED = "seed="
"""How the override begins in which the repeats of an arm differ."""

accepted: list[Config] = []
"""The config of a single run between its check and its start."""
failures: list[str] = []
"""What went wrong in this command, for its last lines and its exit code."""


class Refused(BaseException):
    """A config that nothing is made of, not even a folder.

    Hydra's callbacks swallow every Exception, and it writes a config down before it runs anything.
    """


class Sweep(Callback):
    """Hydra calls this at the start and the end of a run, of a sweep and of each of its arms."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check the config before it is written anywhere, into a folder that no other run has.

        Raises:
            Refused: If it is not sound; it may hold a secret.
        """
        HydraConfig.instance().set_config(config)
        try:
            accepted[:] = [typed(config)]
        except (UserError, HydraException, OmegaConfBaseException, ValueError) as error:
            raise Refused(explain(error)) from error
        _claim(config, "run")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Say how many stage runs the arms share, in a folder that no other sweep has.

        Raises:
            Refused: If a key or a password would be written to the folder of the sweep.
        """
        given = [*config.hydra.overrides.task, *_params(config)]
        if any(re.search(r"://\S*[@?#]", word) for word in given):
            raise Refused(
                "an address must be without a name, a key or a query: a key belongs into "
                "an environment variable"
            )
        _claim(config, "sweep")
        overrides = arms(config)
        if overrides is None:
            log.info("sweep: arms are chosen as results come in; they share upstream stages")
            return
        configs = []
        for arm in overrides:
            try:
                configs.append(compose_arm(config, arm))
            except SecretError as error:
                raise Refused(str(error)) from error
            except (UserError, HydraException, OmegaConfBaseException) as error:
                log.warning("sweep: %s can't run: %s", label(arm), explain(error))
        try:
            log.info("%s\n", share(configs).describe())
        except UserError as error:
            log.warning("sweep: %s", error)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Forget what an earlier run of this arm left in the same folder."""
        if config.hydra.mode == RunMode.MULTIRUN:
            for name in (FAILED, RESULT):
                (Path(config.hydra.runtime.output_dir) / name).unlink(missing_ok=True)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Name the arms that failed and write one report over the others."""
        folder = Path(config.hydra.sweep.dir)
        failed = failed_arms(folder)
        failures.extend(f"failed: {arm}: {why}" for arm, why in failed.items())
        if config.dry_run:
            return
        try:
            log.info("\n%s", joined_report(folder, config.experiment))
        except (UserError, OSError) as error:
            failures.append(f"no report of the sweep: {error}")


def _claim(config: DictConfig, node: str) -> None:
    """Make the folder of a run or a sweep, unless somebody chose it.

    Raises:
        Refused: If there is none, or from what the system says, if it can't be made.
    """
    key = f"hydra.{node}.dir"
    named = OmegaConf.select(config, key)
    if named is None:  # Hydra would make a folder of the name None
        raise Refused(f"{key} names no folder: leave it out, or set it to one")
    if any(word.startswith(f"{key}=") for word in config.hydra.overrides.hydra):
        return
    wanted = Path(named)
    try:
        made = claim(wanted)
    except OSError as error:  # which Hydra would make a warning of
        raise Refused(str(error)) from error
    if made == wanted:
        return
    with read_write(config.hydra), open_dict(config):
        OmegaConf.update(config, key, str(made))
        quoted = str(made).replace("'", "\\'")  # Hydra composes the arms anew, from words
        config.hydra.overrides.hydra.append(f"{key}='{quoted}'")


def fail(sentence: str) -> None:
    """Keep a failure for the end of the command, or for the end of the sweep it is an arm of."""
    job = HydraConfig.get()
    if job.mode != RunMode.MULTIRUN:
        failures.append(sentence)
        return
    try:
        write_text(Path(job.runtime.output_dir) / FAILED, plain(sentence) + "\n")
    except OSError:  # the disk is full, perhaps
        failures.append(sentence)


def describe_run(tracking: TrackingConfig) -> None:
    """Add to the tracker's settings which experiment this is: its overrides and its sweep."""
    job = HydraConfig.get()
    tracking.tags = [*tracking.tags, *_telling(job.overrides.task)]
    if job.mode == RunMode.MULTIRUN:
        tracking.group = tracking.group or Path(job.sweep.dir).name
        arm = [word for word in job.overrides.task if not word.startswith(SEED)]
        tracking.arm = tracking.arm or label(arm)


def arms(config: DictConfig) -> list[list[str]] | None:
    """Return the overrides of every arm; ``None`` if a search decides on them as it goes."""
    sweeper = config.hydra.sweeper
    if not sweeper._target_.endswith(".BasicSweeper"):
        return None
    parsed = OverridesParser.create().parse_overrides(
        [*_params(config), *config.hydra.overrides.task]
    )
    choices = {}  # of a key that is given twice the last word counts
    for word in parsed:
        key = word.get_key_element()
        if word.is_sweep_override():
            choices[key] = [f"{key}={value}" for value in word.sweep_string_iterator()]
        else:
            choices[key] = [f"{key}={word.get_value_element_as_str()}"]
    return [list(arm) for arm in itertools.product(*choices.values())]


def _params(config: DictConfig) -> list[str]:
    """Return what the file of a sweep varies, as on the command line."""
    params = OmegaConf.select(config, "hydra.sweeper.params")
    return [f"{key}={value}" for key, value in (params or {}).items()]


def compose_arm(config: DictConfig, overrides: Sequence[str]) -> Config:
    """Return the typed config of one arm, as its job will see it."""
    return typed(compose(config.hydra.job.config_name, overrides=list(overrides)))


def failed_arms(folder: Path) -> dict[str, str]:
    """Return the arms of a sweep's folder that failed, and why."""
    return {
        label(_overrides(path.parent)): path.read_text(encoding="utf-8").strip()
        for path in sorted(folder.rglob(FAILED))
    }


def joined_report(folder: Path, experiment: Any) -> str:
    """Write ``report.html`` over the arms that reached an evaluation; return what to tell.

    Args:
        folder: Of the sweep.
        experiment: The node of the config that says what it was made to find out.
    """
    found = sorted(path.parent for path in folder.rglob(RESULT))
    if not found:
        return f"no arm reached stage=evaluate, so there is nothing to compare: {folder}"
    from cai.report import Question, collect, comparison_table, write_report
    from cai.report.answers import answer

    question = Question(
        experiment.question, getattr(experiment.outcome, "name", "harmlessness_elo")
    )
    result = collect(found, question)
    page = write_report(result, folder / "report.html")
    told = "\n".join(answer(result)) if result.joined else ""
    return f"{comparison_table(result)}\n\n{told}\n\nreport of the sweep: {page}"


def objectives(folder: Path) -> tuple[float, float, float] | None:
    """Return what a search optimises: the policy's two Elo scores and its evasiveness.

    Args:
        folder: Of a job.

    Returns:
        Harmlessness Elo, helpfulness Elo and evasiveness of the policy; ``None`` if the job did not
        reach an evaluation, or had no judge for them.
    """
    import json

    if not (folder / RESULT).exists():
        return None
    artifact = Path(json.loads((folder / RESULT).read_text(encoding="utf-8"))["artifact"])
    summary = json.loads((artifact / "summary.json").read_text(encoding="utf-8"))
    [metrics] = [s["metrics"] for s in summary["systems"] if s["name"] == summary["recipe"]]
    names = ("harmlessness_elo", "helpfulness_elo", "evasiveness")
    if any(name not in metrics for name in names):
        return None
    harmless, helpful, evasive = (metrics[name]["value"] for name in names)
    return harmless, helpful, evasive


def label(overrides: Sequence[str]) -> str:
    """Name an arm by what was set for it."""
    return " ".join(_telling(overrides)) or "defaults"


def _telling(overrides: Sequence[str]) -> list[str]:
    return [word for word in overrides if word.lstrip("+~").split("=")[0].split(".")[0] not in HOW]


def _overrides(folder: Path) -> list[str]:
    saved = OmegaConf.load(folder / ".hydra" / "overrides.yaml")
    return [str(word) for word in saved]
