"""The judge of all systems: trained on comparisons that no other stage reads, or somebody's own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from cai.config import JudgeSource
from cai.contracts.assistants import NoInputs
from cai.contracts.judges import JudgeModels, JudgeSettings
from cai.data.pairs import read_pairs
from cai.data.records import Comparison
from cai.data.sources import JudgeData, load_corpus
from cai.data.splits import Splits
from cai.judging.exam import Paper, sit
from cai.judging.learn import SEED, learn
from cai.judging.load import load_judge, names
from cai.lm.load import load_chat, load_model
from cai.pipeline.stage import Job
from cai.results.common import AXES
from cai.results.judge import JudgeExam, JudgeReport
from cai.sampling.fitting import Fitting, Sifted
from cai.training.trainer import seed_everything

log = logging.getLogger(__name__)


def notes(settings: JudgeSettings) -> list[str]:
    """Say which rows do not fit."""
    return [found.note for found in sift(settings) if found.note is not None]


def sift(settings: JudgeSettings) -> list[Sifted[Comparison]]:
    """Find the judge's comparisons that fit the base, by axis."""
    fitting = Fitting(load_chat(settings.model), settings.data.too_long, "judge")
    sets = load_corpus(settings.data).judge._asdict().items()
    return [fitting.sift(f"judge's {axis}", splits, 0) for axis, splits in sets]


def run(settings: JudgeSettings, inputs: NoInputs, out: JudgeModels, job: Job) -> None:
    """Train the judge or connect to it, and measure it on comparisons that it has not seen."""
    seed_everything(SEED)
    sifted = sift(settings)
    for note in (each.note for each in sifted if each.note is not None):
        log.warning("%s", note)
    data = JudgeData(*(each.rows for each in sifted))
    trained_on = {}
    if settings.judge.source is JudgeSource.labels:
        for axis in AXES:
            trained_on[axis] = learn(settings, axis, getattr(data, axis), out.axis(axis), job)
    model = load_model(settings.model, job.hardware)  # the same base, with nothing on it
    judge = load_judge(settings.judge, model, out, job.hardware)
    papers = [
        Paper(axis, "data", found.validation + found.test) for axis, found in data._asdict().items()
    ]
    exams = [sit(judge, paper) for paper in (*papers, *_of_people(settings))]
    out.report.write(
        JudgeReport(
            source=settings.judge.source.value,
            models=names(settings.judge, settings.model.name),
            trained_on=trained_on,
            exams=exams,
        )
    )
    job.tracker.metrics(_numbers(exams), 0)


def _of_people(settings: JudgeSettings) -> list[Paper]:
    """Read what people chose: which axis they went by is not known, so both are asked."""
    if settings.judge.people is None:
        return []
    found = read_pairs(Path(settings.judge.people), "judge.people", settings.data.bad_rows)
    fitting = Fitting(load_chat(settings.model), settings.data.too_long, "judge")
    sifted = fitting.sift("people's", Splits([pair.record for pair in found], [], []), 0)
    if sifted.note is not None:
        log.warning("%s", sifted.note)
    return [Paper(axis, "people", sifted.rows.train) for axis in AXES]


def _numbers(exams: Sequence[JudgeExam]) -> dict[str, float]:
    found = {}
    for exam in exams:
        if exam.accuracy.value is not None:
            found[f"{exam.axis}/{exam.whose}/accuracy"] = exam.accuracy.value
        if exam.ece is not None:
            found[f"{exam.axis}/{exam.whose}/ece"] = exam.ece
    return found
