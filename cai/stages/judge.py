"""The judge of all systems: trained on comparisons that no other stage reads, or somebody's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cai.config import JudgeSource
from cai.contracts.assistants import NoInputs
from cai.contracts.judges import AXES, JudgeModels, JudgeSettings
from cai.data.pairs import read_pairs
from cai.data.sources import JudgeData, load_corpus
from cai.data.splits import Splits
from cai.judging.exam import Paper, sit
from cai.judging.learn import SEED, learn
from cai.judging.load import load_judge, names
from cai.lm.language_model import LanguageModel
from cai.lm.load import load_model
from cai.pipeline.stage import Job
from cai.results.judge import JudgeExam, JudgeReport
from cai.sampling.fitting import Fitting
from cai.training.trainer import seed_everything


def run(settings: JudgeSettings, inputs: NoInputs, out: JudgeModels, job: Job) -> None:
    """Train the judge or connect to it, and measure it on comparisons that it has not seen."""
    seed_everything(SEED)
    data = _fitting(settings, load_model(settings.model, job.hardware))
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


def _fitting(settings: JudgeSettings, model: LanguageModel) -> JudgeData:
    """Return the judge's comparisons as far as they fit the base."""
    fitting = Fitting(model.chat, settings.data.too_long, "judge")
    corpus = load_corpus(settings.data)
    return JudgeData(
        *(
            Splits(*(fitting.fit(rows, 0, f"judge's {axis}") for rows in found))
            for axis, found in corpus.judge._asdict().items()
        )
    )


def _of_people(settings: JudgeSettings) -> list[Paper]:
    """Read what people chose: which axis they went by is not known, so both are asked."""
    if settings.judge.people is None:
        return []
    pairs = list(read_pairs(Path(settings.judge.people)).values())
    return [Paper(axis, "people", pairs) for axis in AXES]


def _numbers(exams: Sequence[JudgeExam]) -> dict[str, float]:
    found = {}
    for exam in exams:
        if exam.accuracy.value is not None:
            found[f"{exam.axis}/{exam.whose}/accuracy"] = exam.accuracy.value
        if exam.ece is not None:
            found[f"{exam.axis}/{exam.whose}/ece"] = exam.ece
    return found
