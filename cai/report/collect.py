"""Reading results: one evaluate run as it is, several joined on one Elo scale."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from cai.algorithms.elo import RATINGS
from cai.contracts.found import find_evaluation
from cai.contracts.policies import Evaluation, Upstream
from cai.errors import UserError
from cai.files import read_json
from cai.jsonl import Document, Rows
from cai.pipeline.stage import RECORD
from cai.report.joined import Joined, join
from cai.report.paper_results import PaperTest, join_paper_tests
from cai.report.people import Agreement, agreement, choices_for, rated
from cai.report.systems import Named, System, describe, levels_of
from cai.results.common import Numbers
from cai.results.judge import JudgeReport
from cai.results.labels import LabelReport, PMMetrics
from cai.results.systems import (
    HarmfulnessMetrics,
    Reply,
    RevisionSummary,
    StageRun,
    Summary,
    Transcript,
)

T = TypeVar("T")


@dataclass(frozen=True)
class Steps:
    """What earlier stages left; None or empty where a recipe has no such step."""

    revisions: RevisionSummary | None = None
    labels: LabelReport | None = None
    pm: PMMetrics | None = None
    history: tuple[Numbers, ...] = ()
    looks: tuple[Transcript, ...] = ()
    harmfulness: HarmfulnessMetrics | None = None
    judge: JudgeReport | None = None


@dataclass(frozen=True)
class Result:
    """What the report shows.

    Attributes:
        systems: With their metrics on the joined scale.
        replies: Sampled replies; ``system`` is the id of a system.
        runs: The summary of every folder.
        notes: What has to be said of all runs and of their scale.
        steps: What earlier stages left, of the first folder.
        paper: The paper's own tests with everyone's results.
        judged: Number of prompts that each rating rests on.
        questions: Number of everyday questions that each system was asked.
        joined: What several runs say together; None for one.
        question: What they were made to find out.
        levels: The factors of the experiment, with the value of each run.
        policies: Id of each run's policy.
        people: How far people agree, by axis; empty if none compared anything.
    """

    systems: list[System]
    replies: list[Reply]
    runs: list[Summary]
    notes: list[str]
    steps: Steps
    paper: list[PaperTest]
    judged: dict[str, int]
    questions: int
    joined: Joined | None
    question: Question
    levels: dict[str, list[Any]]
    policies: list[str]
    people: list[Agreement]


@dataclass(frozen=True)
class Question:
    """What an experiment was made to find out.

    Attributes:
        text: In words; None if nobody said.
        outcome: The metric that answers it.
    """

    text: str | None = None
    outcome: str = "harmlessness_elo"


def collect(folders: Sequence[Path], question: Question = Question()) -> Result:
    """Read result folders, or run folders that point to one.

    Args:
        folders: Of runs or of their results.
        question: Of the experiment that they are the arms of.

    Raises:
        UserError: If a folder holds no result, or one that can't be read.
    """
    found = list({e.path.resolve(): e for e in map(find_evaluation, folders)}.values())
    runs = [_named(evaluation) for evaluation in found]
    summaries = [run.summary for run in runs]
    shown = describe(summaries)
    for run, own in zip(runs, shown, strict=True):
        run.ids.update({name: system.id for name, system in own.items()})
    systems = _systems(runs, shown)
    joined = join(systems, runs) if len(runs) > 1 else None
    notes = [note for run in runs for note in run.summary.notes]
    return Result(
        systems=list(systems.values()),
        replies=_replies(runs),
        runs=summaries,
        notes=list(dict.fromkeys(notes + (joined.notes if joined else []))),
        steps=_steps(found[0].upstream),
        paper=_paper(found, runs),
        judged=_judged(runs) | (joined.prompts if joined else {}),
        questions=max(_questions(evaluation) for evaluation in found),
        joined=joined,
        question=question,
        levels=levels_of(summaries),
        policies=[run.ids[run.summary.recipe] for run in runs if run.summary.recipe in run.ids],
        people=agreement(runs),
    )


def _named(evaluation: Evaluation) -> Named:
    """Read a run, and what people said of it since; its systems have no ids yet."""
    summary, matches = _summary(evaluation), _rows(evaluation.matches)
    replies = _rows(evaluation.replies)
    if chosen := choices_for(evaluation, summary, replies):
        matches += chosen
        summary = rated(summary, matches)
    return Named(summary, replies, matches, {})


def _systems(runs: Sequence[Named], shown: Sequence[dict[str, System]]) -> dict[str, System]:
    """Put the systems of all runs together, each with the models of all its seeds."""
    systems: dict[str, System] = {}
    for own in shown:
        for system in own.values():
            known = systems.get(system.id, system)
            models = tuple(dict.fromkeys((*known.models, *system.models)))
            systems[system.id] = replace(known, models=models)
    return systems


def _replies(runs: Sequence[Named]) -> list[Reply]:
    """Return each model's replies once; those of a further seed count as further samples."""
    replies: list[Reply] = []
    taken: dict[str, dict[str, int]] = defaultdict(dict)
    for run in runs:
        made = {system.name: system.model for system in run.summary.systems}
        fresh = [name for name, model in made.items() if model not in taken[run.ids[name]]]
        offset = {name: sum(taken[run.ids[name]].values()) for name in fresh}
        for row in run.replies:
            if row.system in offset:
                sample = row.sample + offset[row.system]
                replies.append(replace(row, system=run.ids[row.system], sample=sample))
        for name in fresh:
            samples = {row.sample for row in run.replies if row.system == name}
            taken[run.ids[name]][made[name]] = len(samples)
    return replies


def _judged(runs: Sequence[Named]) -> dict[str, int]:
    """Return the number of prompts that each rating rests on."""
    prompts: dict[tuple[str, str], set[str]] = defaultdict(set)
    for run in runs:
        for match in run.matches:
            prompts[match.judge, match.axis].add(match.prompt_id)
    return {metric: len(prompts[key]) for metric, key in RATINGS.items() if key in prompts}


def _summary(evaluation: Evaluation) -> Summary:
    """Read a summary, and how long each stage took where its result is still there."""
    summary = _document(evaluation.summary)
    stages = [_timed(stage, evaluation.path.parent) for stage in summary.stages]
    return replace(summary, stages=stages)


def _timed(stage: StageRun, folder: Path) -> StageRun:
    record = folder / stage.artifact / RECORD
    if not record.is_file():
        return stage
    return replace(stage, seconds=read_json(record)["made"].get("seconds", 0.0))


def _questions(evaluation: Evaluation) -> int:
    stances = evaluation.stances
    return len({row.id for row in _rows(stances)}) if stances.exists() else 0


def _steps(upstream: Upstream) -> Steps:
    return Steps(
        revisions=_optional(upstream.revisions),
        labels=_optional(upstream.labels),
        pm=_optional(upstream.pm),
        history=tuple(_rows(upstream.history)) if upstream.history.exists() else (),
        looks=tuple(_rows(upstream.transcripts)) if upstream.transcripts.exists() else (),
        harmfulness=_optional(upstream.harmfulness),
        judge=_optional(upstream.judge),
    )


def _paper(found: Sequence[Evaluation], runs: Sequence[Named]) -> list[PaperTest]:
    read = [
        (run, _optional(evaluation.paper_tests))
        for run, evaluation in zip(runs, found, strict=True)
    ]
    taken = [(run, tests) for run, tests in read if tests is not None]
    judges = [_artifact(run.summary, "pm") for run, _ in taken]
    return join_paper_tests([tests for _, tests in taken], [run.ids for run, _ in taken], judges)


def _artifact(summary: Summary, name: str) -> str:
    return next((stage.artifact for stage in summary.stages if stage.stage == name), "")


def _optional(document: Document[T]) -> T | None:
    return _document(document) if document.exists() else None


def _document(document: Document[T]) -> T:
    try:
        return document.read()
    except (OSError, ValueError) as error:
        raise _unreadable(document.path, error) from error


def _rows(rows: Rows[T]) -> list[T]:
    try:
        return rows.read()
    except (OSError, ValueError) as error:
        raise _unreadable(rows.path, error) from error


def _unreadable(path: Path, error: Exception) -> UserError:
    [first, *_] = str(error).splitlines() or [""]
    return UserError(
        f"{str(path)!r} can't be read ({first}): it was not written by this version, so run "
        "stage=evaluate again or leave its folder out"
    )
