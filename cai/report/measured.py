"""Sections on what is measured with instruments of its own: other judges, harm, persona."""

from __future__ import annotations

from collections.abc import Iterator

from cai.report.cells import Cell, cells, estimate
from cai.report.collect import Result
from cai.report.figures import Labels, Series, plot
from cai.report.names import count, n_of
from cai.report.parts import Block, Facts, Figure, Grid, Note, Section, Table
from cai.report.people import notes_of
from cai.report.steps import reliability
from cai.report.tables import BESIDE, HARM, JUDGED, PERSONA, measured
from cai.results.judge import JudgeReport
from cai.results.systems import HarmfulnessMetrics

WHOSE = {"data": "the data", "people": "people"}
JUDGE = {
    "labels": "The judge was made here, from comparisons with a known answer that no other stage "
    "reads ({}), and has not seen those below.",
    "folder": "The judge is a reward model that somebody trained: {}.",
    "endpoint": "The judge is a model behind a server, asked in both orders: {}.",
}
"""Who judges, by source; of those made here what they learnt from, of others their names."""
FLOOR = (
    "It depends on nothing that an experiment varies. Longer wins: how often the longer reply is "
    "the better one, which needs no judge. In brackets: 95 % intervals from a bootstrap over "
    "prompts."
)
OPINIONS = (
    "Everybody who compares has a scale of their own, with SL-CAI (or the first system) at 0. In "
    "brackets: 95 % intervals from a bootstrap over prompts. People choose in the arena, or their "
    "choices are read from evaluate.opinions.human_choices."
)
REGRESSOR = (
    "A model with a scalar head learned by least squares how harmful a whole conversation was "
    "rated, from 0 (not at all) to 4 (very). Held out are conversations that open otherwise. The "
    "predictions are not cut to the ends of the scale. At temperature 0 one reply says all."
)
VIEWS = (
    "Does the answer follow the person's view? "
    "The same everyday question, asked neutrally and by someone who states a view either way. "
    "Consistency is 1 minus the mean change in the probability of the answer, 1 being none; "
    "sycophancy is the mean change towards the stated view. In brackets: 95 % intervals from a "
    "bootstrap over questions."
)


def measured_sections(result: Result) -> Iterator[Section]:
    """Yield the sections that have data."""
    if result.steps.judge is not None:
        yield Section("judge", "The judge", list(_judge(result.steps.judge)))
    if opinions := list(_opinions(result)):
        yield Section("opinions", "Other opinions", opinions)
    heads, rows = measured(result.systems, HARM)
    if rows:
        rated = {(r.system, r.prompt_id) for r in result.replies if r.harmfulness is not None}
        n = n_of([sum(s.id == name for name, _ in rated) for s in result.systems], "prompt")
        blocks: list[Block] = [Note(REGRESSOR), Table(heads, rows, n)]
        if result.steps.harmfulness is not None:
            blocks.append(_regressor(result.steps.harmfulness))
        yield Section("harmfulness", "Absolute harmfulness", blocks)
    heads, rows = measured(result.systems, PERSONA)
    if rows:
        n = count(result.questions, "question")
        yield Section("persona", "Sycophancy", [Note(VIEWS), Table(heads, rows, n)])


def _judge(report: JudgeReport) -> Iterator[Block]:
    """Say who judges, and how far that can be trusted."""
    learnt = [f"{count(n, 'comparison')} of {axis}" for axis, n in report.trained_on.items()]
    named = learnt or list(dict.fromkeys(report.models.values()))
    yield Note(JUDGE[report.source].format(" and ".join(named)))
    rows = [
        [
            Cell(f"{exam.axis[0].upper()}{exam.axis[1:]}"),
            Cell(WHOSE.get(exam.whose, exam.whose)),
            *cells(exam.n, exam.unread, estimate(exam.accuracy, 2), exam.longer_wins, exam.ece),
        ]
        for exam in report.exams
    ]
    heads = ["Axis", "answers by", "pairs", "unread", "accuracy", "longer wins", "ECE"]
    known = [exam for exam in report.exams if exam.reliability]
    figures = [
        reliability(exam.reliability, f"judge-{n}", f"The judge on {exam.axis}.", "comparison")
        for n, exam in enumerate(known)
    ]
    yield Grid([Table(heads, rows, "column “pairs”"), *figures])
    yield Note(FLOOR)


def _opinions(result: Result) -> Iterator[Block]:
    """Show people's Elo beside the judge's, and how far people agree."""
    rated = [key for key in JUDGED if any(key in system.metrics for system in result.systems)]
    if rated:
        beside = [key for key in BESIDE if key in rated or f"{key}_human" in rated]
        heads, rows = measured(result.systems, {key: BESIDE[key] for key in beside})
        n = n_of([result.judged[key] for key in rated if key in result.judged], "prompt")
        yield from (Note(OPINIONS), Table(heads, rows, n))
    if result.people:
        rows = [
            [
                Cell(f"{one.axis[0].upper()}{one.axis[1:]}"),
                *cells(one.choices, one.annotators or None, one.shared),
                estimate(one.alpha, 2),
                *cells(one.decided, estimate(one.with_judge, 2)),
            ]
            for one in result.people
        ]
        heads = ["Axis", "choices", "annotators", "shared pairs", "alpha", "decided",
                 "with the judge"]  # fmt: skip
        yield Table(heads, rows, "columns “shared pairs” and “decided”")
        yield from (Note(note) for note in notes_of(result.people))


def _regressor(data: HarmfulnessMetrics) -> Block:
    """Show how good the regressor is on conversations that it has not seen."""
    none = Cell("none: one side does not vary")
    values = cells(
        data.trained_on,
        data.held_out,
        data.too_long,
        estimate(data.error, 2),
        data.error_of_the_mean,
        none if data.rank_correlation is None else estimate(data.rank_correlation, 2),
    )
    names = (
        "rated conversations learned from", "held out", "too long for the model",
        "root mean square error", "error of always predicting the mean", "rank correlation",
    )  # fmt: skip
    points = data.predictions
    series = Series(
        "held-out conversations",
        [point.rating for point in points],
        [point.predicted for point in points],
        line=False,
    )
    drawing = plot([series], Labels("harmfulness", "rating", "prediction"))
    caption = "Predictions against people's ratings."
    n = count(data.held_out, "conversation")
    return Grid([Facts(list(zip(names, values, strict=True))), Figure(drawing, caption, n)])
