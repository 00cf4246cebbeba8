"""Reading results: one evaluate run as it is, several joined on one Elo scale."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from cai.contracts.policies import Evaluation, Upstream
from cai.errors import UserError
from cai.files import read_json
from cai.jsonl import Document, Rows
from cai.pipeline.stage import RECORD
from cai.report.paper_results import PaperTest, join_paper_tests
from cai.report.systems import OWN_SCALES, System, judged_prompts, rate_together
from cai.results.common import Numbers
from cai.results.labels import LabelReport, PMMetrics
from cai.results.systems import (
    HarmfulnessMetrics,
    Match,
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
    """

    systems: list[System]
    replies: list[Reply]
    runs: list[Summary]
    notes: list[str]
    steps: Steps
    paper: list[PaperTest]
    judged: dict[str, int]
    questions: int

    @property
    def own_scales(self) -> bool:
        """Whether ratings of different runs can't be compared."""
        return OWN_SCALES in self.notes


@dataclass(frozen=True)
class _Run:
    """A result that was read; ``systems`` are its own, by name, as they are shown."""

    evaluation: Evaluation
    summary: Summary
    systems: dict[str, System]

    def ids(self) -> dict[str, str]:
        return {name: system.id for name, system in self.systems.items()}


def collect(folders: Sequence[Path]) -> Result:
    """Read result folders, or run folders that point to one.

    Raises:
        UserError: If a folder holds no result, or one that can't be read.
    """
    found = [_evaluation(folder) for folder in folders]
    runs = _named([(evaluation, _summary(evaluation)) for evaluation in found])
    systems: dict[str, System] = {}
    replies: list[Reply] = []
    matches: list[Match] = []
    for run in runs:
        ids = run.ids()
        fresh = {name for name in ids if ids[name] not in systems}
        systems |= {ids[name]: run.systems[name] for name in ids if name in fresh}
        replies += [
            replace(row, system=ids[row.system])
            for row in _rows(run.evaluation.replies)
            if row.system in fresh
        ]
        matches += [
            replace(row, first=ids[row.first], second=ids[row.second])
            for row in _rows(run.evaluation.matches)
        ]
    note = rate_together(systems, matches) if len(runs) > 1 else None
    notes = [note for run in runs for note in run.summary.notes] + ([note] if note else [])
    return Result(
        systems=list(systems.values()),
        replies=replies,
        runs=[run.summary for run in runs],
        notes=list(dict.fromkeys(notes)),
        steps=_steps(runs[0].evaluation.upstream),
        paper=_paper(runs),
        judged=judged_prompts(matches),
        questions=max(_questions(run.evaluation) for run in runs),
    )


def _evaluation(folder: Path) -> Evaluation:
    pointer = folder / "result.json"
    if pointer.is_file():
        folder = Path(read_json(pointer)["artifact"])
    evaluation = Evaluation("evaluate", "", folder)
    if not evaluation.summary.path.is_file():
        raise UserError(
            f"{str(folder)!r} holds no evaluation: give folders named evaluate-... below "
            "outputs/artifacts, or the folder of a run that reached stage=evaluate"
        )
    return evaluation


def _summary(evaluation: Evaluation) -> Summary:
    """Read a summary, and how long each stage took where its result is still there."""
    summary = _document(evaluation.summary)
    stages = [_timed(stage, evaluation.path.parent) for stage in summary.stages]
    return replace(summary, stages=stages)


def _timed(stage: StageRun, folder: Path) -> StageRun:
    record = folder / stage.artifact / RECORD
    if not record.is_file():
        return stage
    return replace(stage, seconds=read_json(record)["made"]["seconds"])


def _named(read: Sequence[tuple[Evaluation, Summary]]) -> list[_Run]:
    """Name systems for display: one model has one name, and differing ones say what differs."""
    summaries = [summary for _, summary in read]
    differing = _differing(summaries)
    said = [", ".join(f"{key}={run.settings.get(key)}" for key in differing) for run in summaries]
    models: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for run, about in zip(summaries, said, strict=True):
        for system in run.systems:
            models[(system.name,)].add(system.model)
            models[system.name, about].add(system.model)

    def about_of(name: str, model: str, about: str) -> str:
        if len(models[(name,)]) == 1:
            return ""
        told = [about] if len(models[name, about]) == 1 else [about, model]
        return ", ".join(filter(None, told))

    return [
        _Run(
            evaluation,
            summary,
            {s.name: System(s.name, about_of(s.name, s.model, about), s.model, dict(s.metrics))
             for s in summary.systems},
        )
        for (evaluation, summary), about in zip(read, said, strict=True)
    ]  # fmt: skip


def _differing(runs: Sequence[Summary]) -> list[str]:
    keys = sorted({key for run in runs for key in run.settings} - {"constitution.description"})
    values = {key: {json.dumps(run.settings.get(key)) for run in runs} for key in keys}
    return [key for key in keys if len(values[key]) > 1]


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
    )


def _paper(runs: Sequence[_Run]) -> list[PaperTest]:
    read = [(run, _optional(run.evaluation.paper_tests)) for run in runs]
    taken = [(run, tests) for run, tests in read if tests is not None]
    judges = [_artifact(run.summary, "pm") for run, _ in taken]
    return join_paper_tests([tests for _, tests in taken], [r.ids() for r, _ in taken], judges)


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
