"""The figures of the page: lines and points with intervals, and shares as bars."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

from markupsafe import Markup

from cai.report.svg import Canvas, canvas, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEIGHT = 260
COLOURS = 12
"""Colours of the page; after them they begin again, and points have numbers."""
BEGINNING, END = 20, 34
"""Letters of a long name that fit above a bar; its end tells arms of a sweep apart."""
DROP = 0.08
"""Of a bar below the middle of its row, which leaves room for the name."""
INSIDE = 0.09
"""Share from which on a bar has room for its figure."""


@dataclass(frozen=True)
class Series:
    """Points of one colour, with vertical and horizontal intervals where there are any."""

    name: str
    x: Sequence[float | None]
    y: Sequence[float | None]
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()
    x_low: Sequence[float | None] = ()
    x_high: Sequence[float | None] = ()
    line: bool = True


@dataclass(frozen=True)
class Labels:
    """Texts of a drawing: what it shows, as its key on the page and for its axes."""

    key: str
    x: str
    y: str


def plot(series: Sequence[Series], labels: Labels, diagonal: bool = False) -> Markup:
    """Draw lines or points with intervals; nothing if there are no numbers.

    Args:
        series: What is drawn.
        labels: Texts.
        diagonal: Both axes are probabilities of the same scale, and a guide shows where they agree.
    """
    points = [
        (x, y) for s in series for x, y in zip(s.x, s.y, strict=True) if _fine(x) and _fine(y)
    ]
    if not points:
        return Markup("")
    with canvas(HEIGHT, labels.key) as drawn:
        axes = drawn.axes
        axes.set_xlabel(plain(labels.x))
        axes.set_ylabel(plain(labels.y))
        for n, one in enumerate(series):
            _draw(drawn, one, n, numbered=len(series) > COLOURS)
        if diagonal:
            _agreement(drawn, min(0.5, *(value for point in points for value in point)))
        else:
            _limits(axes, series)
        names = ", ".join(s.name for s in series[:COLOURS])
        return drawn.svg(f"{labels.y} against {labels.x}: {names}")


def bars(rows: Sequence[tuple[str, Sequence[float]]], parts: Sequence[str], key: str) -> Markup:
    """Draw shares of a whole as stacked horizontal bars, the names above them."""
    with canvas(40 * len(rows) + 8, key) as drawn:
        axes = drawn.axes
        axes.set_axis_off()
        for n, (name, shares) in enumerate(rows):
            drawn.mark(axes.text(0, n - 0.22, _short(name), va="bottom"), "name", name)
            starts = [0.0, *itertools.accumulate(shares)]
            for k in [k for k, share in enumerate(shares) if share > 0]:
                _bar(drawn, (starts[k], n), shares[k], k, f"{parts[k]}: {shares[k]:.0%}")
        axes.set_xlim(0, 1)
        axes.set_ylim(len(rows) - 0.6, -0.65)
        return drawn.svg(f"Shares of {', '.join(parts)}")


def _agreement(drawn: Canvas, low: float) -> None:
    """Draw where both axes agree."""
    [guide] = drawn.axes.plot([low, 1], [low, 1], linestyle=(0, (4, 4)), linewidth=1)
    drawn.mark(guide, "axis")
    drawn.axes.set_xlim(low - 0.02, 1.02)
    drawn.axes.set_ylim(low - 0.02, 1.02)


def _bar(drawn: Canvas, place: tuple[float, int], share: float, colour: int, title: str) -> None:
    [patch] = drawn.axes.barh(place[1] + DROP, share, left=place[0], height=0.5, linewidth=0)
    drawn.mark(patch, _css(colour), title)
    if share >= INSIDE:
        middle = (place[0] + share / 2, place[1] + DROP)
        text = drawn.axes.text(*middle, f"{share:.0%}", ha="center", va="center")
        drawn.mark(text, "inside")


def _draw(drawn: Canvas, series: Series, n: int, numbered: bool) -> None:
    axes, css = drawn.axes, _css(n)
    known = [
        (i, x, y)
        for i, (x, y) in enumerate(zip(series.x, series.y, strict=True))
        if _fine(x) and _fine(y)
    ]
    if not known:
        return
    for i, x, y in known:
        for low, high, upright in (
            (series.low, series.high, True), (series.x_low, series.x_high, False)
        ):  # fmt: skip
            ends = (low[i], high[i]) if i < len(low) else (None, None)
            if _fine(ends[0]) and _fine(ends[1]):
                at = ([x, x], list(ends)) if upright else (list(ends), [y, y])
                drawn.mark(axes.plot(*at, linewidth=1.2)[0], f"{css} bound")
    style: dict[str, Any] = {"linestyle": "-" if series.line else "none", "marker": "o"}
    xs, ys = [x for _, x, _ in known], [y for _, _, y in known]
    [line] = axes.plot(xs, ys, markeredgewidth=0, clip_on=False, **style)
    drawn.mark(line, css, series.name)
    if numbered:
        text = axes.annotate(str(n + 1), (xs[-1], ys[-1]), (4, 4), textcoords="offset points")
        drawn.mark(text, css)


def _limits(axes: Axes, series: Sequence[Series]) -> None:
    """Leave some room around the numbers, also where all of them are equal."""
    from matplotlib.ticker import MaxNLocator

    xs = [v for s in series for part in (s.x, s.x_low, s.x_high) for v in part if _fine(v)]
    ys = [v for s in series for part in (s.y, s.low, s.high) for v in part if _fine(v)]
    for values, set_limits in ((xs, axes.set_xlim), (ys, axes.set_ylim)):
        low, high = min(values), max(values)
        margin = 0.06 * (high - low) or max(abs(low) * 0.1, 0.5)
        set_limits(low - margin, high + margin)
    if all(float(x).is_integer() for x in xs):
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _css(n: int) -> str:
    return f"c{n % COLOURS}"


def _short(name: str) -> str:
    name = plain(name)
    if len(name) <= BEGINNING + END:
        return name
    return f"{name[:BEGINNING]}…{name[-END:]}"


def _fine(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)
