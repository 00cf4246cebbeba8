"""The finished runs that people judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cai.contracts.found import choices_of, find_evaluation
from cai.contracts.policies import Evaluation
from cai.data.choices import HumanChoice, choices_in
from cai.errors import UserError
from cai.results.systems import Reply, SystemSummary


@dataclass(frozen=True)
class Run:
    """One evaluation, as the arena uses it.

    Attributes:
        name: Of its folder.
        evaluation: Where it lies.
        systems: Who replied.
        replies: What they said.
    """

    name: str
    evaluation: Evaluation
    systems: Sequence[SystemSummary]
    replies: Sequence[Reply]

    @property
    def choices(self) -> Path:
        """The file to which people's choices are appended."""
        return choices_of(self.evaluation)

    @property
    def talks(self) -> Path:
        """The folder of the conversations that people have with its systems."""
        return self.choices.with_suffix("") / "talks"

    def chosen(self) -> list[HumanChoice]:
        """Read the choices so far.

        Raises:
            UserError: If a line is not a choice between what was evaluated.
        """
        if not self.choices.is_file():
            return []
        names = [system.name for system in self.systems]
        return choices_in(self.choices, names, {row.prompt_id for row in self.replies})


def open_run(folder: Path) -> Run:
    """Read an evaluation.

    Raises:
        UserError: If there is none, it can't be read, or there is nobody to compare.
    """
    evaluation = find_evaluation(folder)
    try:
        summary, replies = evaluation.summary.read(), evaluation.replies.read()
    except (OSError, ValueError) as error:
        [first, *_] = str(error).splitlines() or [""]
        raise UserError(
            f"{str(evaluation.path)!r} can't be read ({first}): it was not written by this "
            "version, so run stage=evaluate again"
        ) from error
    if len(summary.systems) < 2:
        raise UserError(
            f"{str(folder)!r} evaluated one system only: a comparison needs two, so run another "
            "recipe or set evaluate.baselines.snapshots"
        )
    return Run(evaluation.path.resolve().name, evaluation, summary.systems, replies)


def open_runs(folders: Sequence[Path]) -> list[Run]:
    """Read several, each once."""
    return list({run.name: run for run in map(open_run, folders)}.values())
