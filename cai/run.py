"""One job from config to report: print the plan, make what is missing, print the comparison."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path

from cai import parallel
from cai.config import Config
from cai.contracts.table import stages
from cai.errors import UserError
from cai.files import write_json
from cai.lm.device import memory_of, processes_of
from cai.lm.footprint import Footprint, footprint, remedy, shape_of
from cai.lm.load import load_model
from cai.lm.speed import measure
from cai.pipeline.cost import Cost, cost_of
from cai.pipeline.execute import execute
from cai.pipeline.plan import State, Step, plan
from cai.pipeline.stage import NEEDS, RESULT, TARGET, result_name
from cai.pipeline.store import Store
from cai.report import collect, comparison_table, write_report

log = logging.getLogger("cai")

CHATTY = ("lightning.pytorch", "transformers", "peft", "httpx")


def run(config: Config, folder: Path) -> None:
    """Bring the target stage up to date.

    Args:
        config: The typed config.
        folder: Folder of this job's logs and metrics.
    """
    quieten()
    processes = processes_of(config.hardware)
    with parallel.connected(processes, identity(config)):
        _run(config, folder)


def _run(config: Config, folder: Path) -> None:
    store = Store(Path(config.outputs) / "artifacts")
    steps = plan(config, store, stages())
    names = [result_name(step.stage.name, step.key) for step in steps]
    parallel.agree_on(repr(names))  # the files that settings point to are the same as well
    memory = footprints(steps, config)
    check_memory(memory, config)
    if parallel.is_global_zero():
        log.info("\n%s", describe(steps, config, memory))
    if config.dry_run:
        return
    if parallel.is_global_zero():
        write_json(folder / NEEDS, names)
    result = execute(steps, config, store, folder)
    if not parallel.is_global_zero():
        return
    write_json(folder / TARGET, {"artifact": str(result.path.resolve())})
    if result.stage != "evaluate":
        log.info("result: %s", result.path)
        return
    write_json(folder / RESULT, {"artifact": str(result.path.resolve())})
    found = collect([result.path])
    report = write_report(found, folder / "report.html")
    log.info("\n%s\n\nreport: %s", comparison_table(found), report)


def quieten() -> None:
    """Leave the words on the screen to this project; warnings of others still pass as errors."""
    import lightning.pytorch  # noqa: F401  (sets its own level when it is imported)
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    for category in (FutureWarning, DeprecationWarning):
        warnings.filterwarnings("ignore", category=category)


def footprints(steps: list[Step], config: Config) -> dict[str, Footprint]:
    """Estimate the peak memory of what is still to be made, in each process."""
    pending = [step.stage for step in steps if step.state is not State.reuse]
    if not pending:
        return {}
    shape, world = shape_of(config.model), processes_of(config.hardware).world_size
    return {
        stage.name: footprint(shape, stage.cost(config).holds, config, world) for stage in pending
    }


def check_memory(memory: Mapping[str, Footprint], config: Config) -> None:
    """Refuse what can't fit.

    Raises:
        UserError: Names the stage that needs most, what takes most of it, and the key to change.
    """
    if not memory:
        return
    stage, found = max(memory.items(), key=lambda item: item[1].peak)
    room = memory_of(config.hardware)
    if found.peak > room:
        part, advice = remedy(found, config)
        raise UserError(
            f"stage {stage} needs about {found.peak:.1f} GiB on each device, and there are "
            f"{room:.1f}; {part} {getattr(found, part):.1f} of it: {advice}"
        )


def describe(steps: list[Step], config: Config, memory: Mapping[str, Footprint]) -> str:
    """Write the plan as a table: what runs, and what it should take on this machine."""
    pending = [step for step in steps if step.state is not State.reuse]
    costs = estimate(pending, config)
    lines = [f"{'stage':10}{'':9}{'prompts':>9}{'tokens':>10}{'minutes':>9}{'GiB':>7}"]
    for step in steps:
        cost = costs.get(step.stage.name)
        figures = f"{cost.prompts:9,}{cost.tokens:10,}{cost.minutes:9.1f}" if cost else f"{'':28}"
        held = f"{memory[step.stage.name].peak:7.1f}" if cost else ""
        lines.append(f"{step.stage.name:10}{step.state.value:9}{figures}{held}".rstrip())
    lines += [note for step in pending for note in step.stage.notes(step.settings)]
    if pending:
        total = sum(cost.minutes for cost in costs.values())
        lines.append(
            f"about {total:.0f} minutes: an estimate from measuring here for a moment; GiB: at "
            "the peak of a device"
        )
    return "\n".join(lines)


def estimate(steps: list[Step], config: Config) -> dict[str, Cost]:
    """Estimate what is still to be made, by the name of its stage."""
    if not steps:
        return {}
    speed = measure(load_model(config.model, config.hardware))
    return {step.stage.name: cost_of(step.stage.cost(config), *speed) for step in steps}


def identity(config: Config) -> str:
    """Name the code and the config, which must be the same in every process of a run."""
    digest = hashlib.sha256(repr(config).encode())
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
