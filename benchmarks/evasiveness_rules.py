"""Fit the quick form of the reply classifier: two logistic models on named features.

The figures that count are those of systems left out: features are measured without data, and
weights and regularisation are chosen on the other systems only. What cannot be nested: whoever
wrote the features had read replies of all these systems and watched these figures, so they flatter.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from evasiveness_rows import (
    STYLES,
    Row,
    helper_refusals,
    helper_styles,
    human_refusals,
    style_rows,
)
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from cai.evasiveness.classifier import Model, Style
from cai.evasiveness.features import extract

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PENALTIES = (0.1, 0.3, 1.0)  # inverse strength of the L2 penalty; chosen on inner systems
HELPER_WEIGHT = 0.1  # of rows labelled by a model or by construction, against human labels
STYLE_HELPER_ROWS = 25.0  # weight of all helper rows of one style together


class Table(NamedTuple):
    """Rows as a design matrix."""

    rows: list[Row]
    names: list[str]
    x: Floats
    y: Ints
    system: NDArray[np.str_]
    trusted: NDArray[np.bool_]


def tabulate(rows: list[Row], acts_only: bool) -> Table:
    """Measure the rows; the refusal model sees acts only, which carry over better."""
    measured = [extract(row.prompt, row.response) for row in rows]
    names = [name for name in measured[0] if not (acts_only and name.startswith("shape."))]
    return Table(
        rows,
        names,
        np.array([[features[name] for name in names] for features in measured]),
        np.array([row.label for row in rows]),
        np.array([row.system for row in rows]),
        np.array([row.trusted for row in rows]),
    )


def refusal_weights(table: Table, keep: NDArray[np.bool_]) -> Floats:
    """Every system counts as the square root of its rows; helpers count less."""
    sizes = Counter(table.system[keep])
    weights = np.array([sizes[system] ** -0.5 for system in table.system[keep]])
    weights[~table.trusted[keep]] *= HELPER_WEIGHT
    scaled: Floats = weights / weights.mean()
    return scaled


def style_weights(table: Table, keep: NDArray[np.bool_]) -> Floats:
    """Helper rows of a style share a fixed weight; written examples count as they are."""
    full = table.trusted | (table.system == "examples")
    helpers = Counter(table.y[keep & ~full])
    shares = [STYLE_HELPER_ROWS / helpers[y] if y in helpers else 1.0 for y in table.y[keep]]
    weights: Floats = np.where(full[keep], 1.0, shares)
    return weights


Weigh = Callable[[Table, NDArray[np.bool_]], Floats]
Judge = Callable[[Ints, Ints], float]


def fit(table: Table, keep: NDArray[np.bool_], penalty: float, weigh: Weigh) -> LogisticRegression:
    """Fit a logistic model to some of the rows."""
    model = LogisticRegression(C=penalty, max_iter=3000)
    return model.fit(table.x[keep], table.y[keep], sample_weight=weigh(table, keep))


def left_out(table: Table, keep: NDArray[np.bool_], penalty: float, weigh: Weigh) -> Ints:
    """Label each trusted row by a model that saw no row of its system."""
    found = np.full(len(table.y), -1)
    for system in sorted(set(table.system[keep & table.trusted])):
        theirs = table.system == system
        model = fit(table, keep & ~theirs, penalty, weigh)
        rows = keep & theirs & table.trusted
        found[rows] = model.predict(table.x[rows])
    return found


def choose_penalty(table: Table, keep: NDArray[np.bool_], weigh: Weigh, judge: Judge) -> float:
    """Choose the penalty by leaving systems out among the rows kept."""
    rows = keep & table.trusted

    def score(penalty: float) -> float:
        found = left_out(table, keep, penalty, weigh)
        return judge(table.y[rows], found[rows])

    return max(PENALTIES, key=score)


def nested(table: Table, weigh: Weigh, judge: Judge) -> tuple[Ints, dict[str, float]]:
    """Leave each system out, choosing the penalty within the others."""
    found = np.full(len(table.y), -1)
    chosen = {}
    for system in sorted(set(table.system[table.trusted])):
        theirs = table.system == system
        chosen[system] = choose_penalty(table, ~theirs, weigh, judge)
        model = fit(table, ~theirs, chosen[system], weigh)
        rows = theirs & table.trusted
        found[rows] = model.predict(table.x[rows])
    return found, chosen


def macro_f1(y: Ints | Sequence[int], found: Ints | Sequence[int]) -> float:
    """Mean of the classes' F1."""
    return float(f1_score(y, found, average="macro"))


def evasive_f1(y: Ints, found: Ints) -> float:
    """F1 of the evasive style."""
    evasive = STYLES.index(Style.EVASIVE)
    return float(f1_score(y == evasive, found == evasive))


def judge_styles(y: Ints, found: Ints) -> float:
    """Mean of the evasive F1 and the macro-F1 of all styles."""
    return (evasive_f1(y, found) + macro_f1(y, found)) / 2


def other_systems_and_topics(table: Table, penalty: float) -> float:
    """XSTest when neither the system nor the prompt's type was seen."""
    kind = np.array([row.kind if row.source == "xstest" else "" for row in table.rows])
    xstest = kind != ""
    found = np.zeros(len(table.y), dtype=np.int64)
    for system in sorted(set(table.system[xstest])):
        for each in sorted(set(kind[xstest])):
            keep = (table.system != system) & (kind != each)
            rows = (table.system == system) & (kind == each)
            found[rows] = fit(table, keep, penalty, refusal_weights).predict(table.x[rows])
    return macro_f1(table.y[xstest], found[xstest])


def as_model(refusal: LogisticRegression, styles: LogisticRegression, tables: list[Table]) -> Model:
    """Weights by name."""

    def named(names: list[str], weights: Floats, intercept: float) -> dict[str, float]:
        rounded = {name: round(float(w), 4) for name, w in zip(names, weights, strict=True)}
        return {"intercept": round(float(intercept), 4), **rounded}

    return Model(
        named(tables[0].names, refusal.coef_[0], refusal.intercept_[0]),
        {
            style: named(tables[1].names, styles.coef_[i], styles.intercept_[i])
            for i, style in enumerate(STYLES)
        },
    )


def fit_all(tables: list[Table], without: str | None = None) -> Model:
    """Fit both models to everything, or to everything but one system."""
    parts = []
    settings = ((refusal_weights, macro_f1), (style_weights, judge_styles))
    for table, (weigh, judge) in zip(tables, settings, strict=True):
        keep = table.system != without
        parts.append(fit(table, keep, choose_penalty(table, keep, weigh, judge), weigh))
    return as_model(parts[0], parts[1], tables)


def write_model(model: Model, path: Path) -> None:
    """Write weights that `cai.evasiveness.classifier.read_model` reads."""
    styles = {str(style): weights for style, weights in model.styles.items()}
    text = json.dumps({"refusal": model.refusal, "styles": styles}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def leave_each_out(tables: list[Table]) -> dict[str, Model]:
    """For each system with style labels, both models fitted without it."""
    systems = sorted(set(tables[1].system[tables[1].trusted]))
    return {system: fit_all(tables, without=system) for system in systems}


def make_tables(data: Path) -> list[Table]:
    """Measure the rows of both models."""
    return [
        tabulate(human_refusals(data) + helper_refusals(data), acts_only=True),
        tabulate(style_rows(data) + helper_styles(data), acts_only=False),
    ]
