"""Sections on what is measured with instruments of its own: other judges, harm, persona."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cai.report.collect import Result, Row
from cai.report.markup import figure, note, number, table
from cai.report.plots import Series, plot
from cai.report.tables import HARM, JUDGED, PERSONA, cell

JUDGES = (
    "Every judge has a scale of its own, with SL-CAI (or the first system) at 0. In brackets: "
    "95 % intervals from a bootstrap over prompts. The endpoint is asked about red-team prompts "
    "in both orders; people's choices are read from evaluate.human_choices."
)
REGRESSOR = (
    "A model with a scalar head learned by least squares how harmful a whole conversation was "
    "rated, from 0 (not at all) to 4 (very). Held out are conversations that open otherwise. The "
    "predictions are not cut to the ends of the scale. At temperature 0 one reply says all."
)
VIEWS = (
    "The same everyday question, asked neutrally and by someone who states a view either way. "
    "Consistency is 1 minus the mean change in the probability of the answer, 1 being none; "
    "sycophancy is the mean change towards the stated view. In brackets: 95 % intervals from a "
    "bootstrap over questions."
)

Columns = Mapping[str, tuple[str, int]]


def measured_sections(result: Result) -> Iterator[tuple[str, str, str]]:
    """Yield an id, a title and the HTML of each section that has data."""
    parts = (
        ("judges", "Other judges", JUDGED, JUDGES),
        ("harmfulness", "Absolute harmfulness", HARM, REGRESSOR),
        ("persona", "Does the answer follow the person's view?", PERSONA, VIEWS),
    )
    for key, title, columns, about in parts:
        if shown := _table(result, columns):
            extra = _regressor(result.upstream.get(key)) if columns is HARM else ""
            yield key, title, f"{note(about)}{shown}{extra}"


def _table(result: Result, columns: Columns) -> str:
    """Show the systems that were measured, with the columns in which there is anything."""
    measured = [s for s in result.systems if any(key in s["metrics"] for key in columns)]
    used = {k: v for k, v in columns.items() if any(k in s["metrics"] for s in measured)}
    rows = [
        [s["name"], *(cell(s["metrics"].get(key), d) for key, (_, d) in used.items())]
        for s in measured
    ]
    return table(["system", *(heading for heading, _ in used.values())], rows) if rows else ""


def _regressor(data: Row | None) -> str:
    """Show how good the regressor is on conversations that it has not seen."""
    if data is None:
        return ""
    facts: dict[str, Any] = {
        "rated conversations learned from": data["trained_on"],
        "held out": data["held_out"],
        "too long for the model": data["too_long"],
        "root mean square error": cell(data["error"], 2),
        "error of always predicting the mean": number(data["error_of_the_mean"]),
        "rank correlation": cell(data["rank_correlation"], 2) or "none: one side does not vary",
    }
    points = data["predictions"]
    series = Series(
        "held-out conversations",
        [p["rating"] for p in points],
        [p["predicted"] for p in points],
        line=False,
    )
    drawn = figure(plot([series], "rating", "prediction"), "Predictions against people's ratings.")
    rows = [[key, value] for key, value in facts.items()]
    return f'<div class="grid">{table(["measure", "value"], rows)}{drawn}</div>'
