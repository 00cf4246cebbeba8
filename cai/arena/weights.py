"""Where the weights of a run's systems are."""

from __future__ import annotations

from pathlib import Path

from cai.arena.runs import Run
from cai.errors import UserError
from cai.results.systems import SystemSummary


def speakers(run: Run) -> list[str]:
    """Name the systems of a run that can be talked to: all whose weights are still there."""
    return [system.name for system in run.systems if _fault(run, system) is None]


def weights_of(run: Run, name: str) -> Path:
    """Return the folder of a system's weights; it is empty of any for the bare base.

    Raises:
        UserError: If there is no such system, or it is not there any more.
    """
    system = next((system for system in run.systems if system.name == name), None)
    if system is None:
        names = ", ".join(system.name for system in run.systems)
        raise UserError(f"there is no system {name!r} in {run.name}: choose among {names}")
    if fault := _fault(run, system):
        raise UserError(fault)
    return _place(run, system)


def _fault(run: Run, system: SystemSummary) -> str | None:
    """Say why a system can't speak."""
    if "-best-of-" in system.model:
        return (
            f"{system.name} is not a model but a choice among several replies: talk to the system "
            "that it chooses from"
        )
    place = _place(run, system)
    # A folder without weights stands for the bare base, and need not be there itself.
    if not (place if "@" in system.model else place.parent).is_dir():
        return (
            f"the weights of {system.name} are not in {place} any more: run the command of that "
            "run again to make them"
        )
    return None


def _place(run: Run, system: SystemSummary) -> Path:
    artifact, _, step = system.model.partition("@")
    result = run.evaluation.path.resolve().parent / artifact
    if not step:
        return result / "model"
    named = [path for path in result.glob("snapshots/*") if path.name.lstrip("0") == step]
    return named[0] if named else result / "snapshots" / step
