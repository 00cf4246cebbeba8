"""The judge of all systems: trained on comparisons that no other stage reads, or somebody's own."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cai.config import JudgeSource
from cai.contracts.assistants import NoInputs
from cai.contracts.judges import AXES, JudgeModels, JudgeSettings
from cai.data.pairs import read_pairs
from cai.data.records import Comparison
from cai.data.sources import JudgeData, load_corpus
from cai.data.splits import Splits
from cai.judging.exam import Paper, sit
from cai.judging.load import load_judge, names
from cai.lm.heads import ScalarHead, ScalarModel
from cai.lm.language_model import LanguageModel
from cai.lm.load import load_model
from cai.pipeline.stage import Job
from cai.results.judge import JudgeExam, JudgeReport
from cai.sampling.fitting import Fitting
from cai.seeds import seed_of
from cai.training.data import Order
from cai.training.pm_metrics import evaluate
from cai.training.preference import PairExample, PreferenceModule, pair_tree
from cai.training.trainer import Fit, fit, seed_everything

SEED = 0
"""Of the judge's own draws: an experiment's seed is something that arms may vary."""


def run(settings: JudgeSettings, inputs: NoInputs, out: JudgeModels, job: Job) -> None:
    """Train the judge or connect to it, and measure it on comparisons that it has not seen."""
    seed_everything(SEED)
    data = _fitting(settings, load_model(settings.model, job.hardware))
    trained_on = {}
    if settings.judge.source is JudgeSource.labels:
        for axis in AXES:
            trained_on[axis] = _train(settings, axis, getattr(data, axis), out, job)
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


def _train(
    settings: JudgeSettings,
    axis: str,
    data: Splits[Comparison],
    out: JudgeModels,
    job: Job,
) -> int:
    """Train one axis; return the number of comparisons."""
    training, folder, name = settings.judge.training, out.axis(axis), f"judge_{axis}"
    chosen = _drawn(data.train, training.pairs, axis)
    if folder.metrics.exists():  # written last
        return len(chosen)
    folder.path.mkdir(exist_ok=True)
    model = load_model(settings.model, job.hardware)
    model.add_adapter(name, seed_of(SEED, name))
    head = ScalarHead(model.hidden_size, seed_of(SEED, name, "head")).to(model.device)
    scorer = ScalarModel(model, name, head)
    pairs = [PairExample(pair_tree(model, c), c.probability, 1.0, c.source) for c in chosen]

    def record(values: Mapping[str, float], step: int) -> None:
        job.tracker.metrics({f"{name}/{key}": value for key, value in values.items()}, step)

    with model.use(name):
        order = Order(job.hardware.micro_tokens, seed_of(SEED, name, "order"))
        module = PreferenceModule(scorer, pairs, training, order)
        fit(module, Fit(name, folder.path, record), job.hardware, job.trainer)
        held_out = {axis: data.validation + data.test}
        known = evaluate(model, head, held_out, job.hardware.micro_tokens)
    scorer.save(folder.path)
    folder.history.write(module.history)
    folder.metrics.write(replace(known, trained_on={axis: len(pairs)}))
    return len(pairs)


def _drawn(records: Sequence[Comparison], n: int | None, axis: str) -> list[Comparison]:
    """Draw as many as are wanted."""
    if n is None or n >= len(records):
        return list(records)
    return random.Random(seed_of(SEED, "judge", axis)).sample(list(records), n)


def _numbers(exams: Sequence[JudgeExam]) -> dict[str, float]:
    found = {}
    for exam in exams:
        if exam.accuracy.value is not None:
            found[f"{exam.axis}/{exam.whose}/accuracy"] = exam.accuracy.value
        if exam.ece is not None:
            found[f"{exam.axis}/{exam.whose}/ece"] = exam.ece
    return found
