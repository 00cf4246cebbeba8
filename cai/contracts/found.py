"""A finished evaluation, found by a folder that somebody names, and what people say of it."""

from __future__ import annotations

from pathlib import Path

from cai.contracts.policies import Evaluation
from cai.data.choices import HumanChoice
from cai.errors import UserError
from cai.files import read_json
from cai.pipeline.stage import RESULT
from cai.results.systems import Match

ARENA = "arena"
"""Folder beside that of the artifacts, where the arena keeps what people choose."""


def find_evaluation(folder: Path) -> Evaluation:
    """Find an evaluation by its own folder, or by that of the run that made it.

    Raises:
        UserError: If there is none.
    """
    named = folder
    if (folder / RESULT).is_file():
        folder = Path(read_json(folder / RESULT)["artifact"])
    evaluation = Evaluation("evaluate", "", folder)
    if not evaluation.summary.path.is_file():
        raise UserError(
            f"{str(named)!r} holds no evaluation: give folders named evaluate-... below "
            "outputs/artifacts, or the folder of a run that reached stage=evaluate"
        )
    return evaluation


def choices_of(evaluation: Evaluation) -> Path:
    """Return the file of the choices that people made in the arena, there or not."""
    folder = evaluation.path.resolve()
    return folder.parent.parent / ARENA / f"{folder.name}.jsonl"


def match_of_choice(choice: HumanChoice) -> Match:
    """Write a person's choice as a match, by people as one judge."""
    return Match(
        "human",
        "people",
        choice.axis,
        choice.prompt_id,
        choice.a,
        choice.b,
        choice.outcome,
        choice.sample,
        choice.annotator,
    )
