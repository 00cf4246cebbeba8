"""Sections on what is measured with instruments of its own: other judges, harm, persona."""

from __future__ import annotations

from collections.abc import Iterator

from cai.report.cells import Cell, cells, estimate
from cai.report.collect import Result
from cai.report.figures import Labels, Series, plot
from cai.report.names import count, n_of
from cai.report.parts import Block, Facts, Figure, Grid, Note, Section, Table
from cai.report.tables import HARM, JUDGED, PERSONA, measured
from cai.results.systems import HarmfulnessMetrics

JUDGES = (
    "Every judge has a scale of its own, with SL-CAI (or the first system) at 0. In brackets: "
    "95 % intervals from a bootstrap over prompts. The endpoint is asked about red-team prompts "
    "in both orders; people's choices are read from evaluate.opinions.human_choices."
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
    heads, rows = measured(result.systems, JUDGED)
    if rows:
        n = n_of([result.judged[key] for key in JUDGED if key in result.judged], "prompt")
        yield Section("judges", "Other judges", [Note(JUDGES), Table(heads, rows, n)])
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
