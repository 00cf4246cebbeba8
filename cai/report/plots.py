"""Plots as SVG text: no library, no script, colours from the page."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

WIDTH, HEIGHT = 520, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 14, 44
COLOURS = 12
"""Colours of the page; after them they begin again."""
SHORT = 20
"""Letters of a name that fit beside a bar."""


@dataclass(frozen=True)
class Series:
    """Points of one colour, with vertical and horizontal intervals where there are any."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()
    x_low: Sequence[float | None] = ()
    x_high: Sequence[float | None] = ()
    line: bool = True


@dataclass(frozen=True)
class Axes:
    """A linear map from numbers to places."""

    x0: float
    x1: float
    y0: float
    y1: float

    def px(self, x: float) -> float:
        """Place of a number on the horizontal axis."""
        return LEFT + (x - self.x0) / (self.x1 - self.x0) * (WIDTH - LEFT - RIGHT)

    def py(self, y: float) -> float:
        """Place of a number on the vertical axis."""
        return HEIGHT - BOTTOM - (y - self.y0) / (self.y1 - self.y0) * (HEIGHT - TOP - BOTTOM)


def plot(series: Sequence[Series], x_label: str, y_label: str, diagonal: bool = False) -> str:
    """Draw lines or points with intervals, axes, ticks and a legend.

    Args:
        series: What is drawn.
        x_label: Of the horizontal axis.
        y_label: Of the vertical axis.
        diagonal: Both axes are probabilities of the same scale, and a guide shows where they agree.
    """
    xs = [v for s in series for part in (s.x, s.x_low, s.x_high) for v in part if _fine(v)]
    ys = [v for s in series for part in (s.y, s.low, s.high) for v in part if _fine(v)]
    if not xs or not ys:
        return "<p>No numbers.</p>"
    low = min(0.5, *xs, *ys)
    both = (low - 0.02, 1.02)
    axes = Axes(*both, *both) if diagonal else Axes(*_range(xs), *_range(ys))
    parts = [_frame(axes, x_label, y_label)]
    if diagonal:
        parts.append(_line("guide", axes.px(low), axes.py(low), axes.px(1), axes.py(1)))
    parts += [_draw(axes, s, n % COLOURS) for n, s in enumerate(series)]
    label = html.escape(f"{y_label} against {x_label}")
    body = "".join(parts)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{body}</svg>'
        + _legend([s.name for s in series])
    )


def bars(rows: Sequence[tuple[str, Sequence[float]]], parts: Sequence[str]) -> str:
    """Draw shares of a whole as stacked horizontal bars; long names stand above their bar."""
    above = max((len(name) for name, _ in rows), default=0) > SHORT
    pitch, start = (46, 10.0) if above else (30, 150.0)
    height = pitch * len(rows) + 8
    drawn = []
    for n, (name, shares) in enumerate(rows):
        y, x = pitch * (n + 1) - 24, start
        where = (start, y - 5, "start") if above else (start - 8, y + 15, "end")
        drawn.append(
            '<text x="{}" y="{}" text-anchor="{}">'.format(*where) + f"{html.escape(name)}</text>"
        )
        for k, share in enumerate(shares):
            width = share * (WIDTH - start - 10)
            title = f"{html.escape(parts[k])}: {share:.0%}"
            drawn.append(
                f'<rect class="f{k % COLOURS}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="20">'
                f"<title>{title}</title></rect>"
            )
            if width > 34:
                drawn.append(
                    f'<text class="in" x="{x + width / 2:.1f}" y="{y + 14}" '
                    f'text-anchor="middle">{share:.0%}</text>'
                )
            x += width
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="shares">{"".join(drawn)}</svg>'
        + _legend(parts)
    )


def _legend(names: Sequence[str]) -> str:
    keys = (
        f'<span class="key s{n % COLOURS}">{html.escape(name)}</span>'
        for n, name in enumerate(names)
    )
    return f'<p class="legend">{"".join(keys)}</p>'


def _draw(axes: Axes, series: Series, colour: int) -> str:
    places = [
        (axes.px(x), axes.py(y)) if _fine(x) and _fine(y) else None
        for x, y in zip(series.x, series.y, strict=True)
    ]
    points = [place for place in places if place is not None]
    parts = []
    if series.line and len(points) > 1:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline class="s{colour}" points="{path}"/>')
    for place, low, high in zip(places, series.low, series.high, strict=False):
        if place is not None and _fine(low) and _fine(high):
            parts.append(_line(f"s{colour}", place[0], axes.py(low), place[0], axes.py(high)))
    for place, low, high in zip(places, series.x_low, series.x_high, strict=False):
        if place is not None and _fine(low) and _fine(high):
            parts.append(_line(f"s{colour}", axes.px(low), place[1], axes.px(high), place[1]))
    parts += [f'<circle class="f{colour}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in points]
    return "".join(parts)


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _frame(axes: Axes, x_label: str, y_label: str) -> str:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [f'<path class="axis" d="M{LEFT},{TOP}V{bottom}H{right}"/>']
    for value in _ticks(axes.x0, axes.x1):
        x = axes.px(value)
        parts.append(
            f'<line class="axis" x1="{x:.1f}" y1="{bottom}" x2="{x:.1f}" y2="{bottom + 4}"/>'
        )
        parts.append(f'<text x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{value:g}</text>')
    for value in _ticks(axes.y0, axes.y1):
        y = axes.py(value)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    middle_x, middle_y = (LEFT + right) / 2, (TOP + bottom) / 2
    parts.append(
        f'<text x="{middle_x}" y="{HEIGHT - 8}" text-anchor="middle">{html.escape(x_label)}</text>'
        f'<text transform="translate(13 {middle_y}) rotate(-90)" text-anchor="middle">'
        f"{html.escape(y_label)}</text>"
    )
    return "".join(parts)


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or max(abs(low) * 0.1, 0.5)
    return low - margin, high + margin


def _ticks(low: float, high: float) -> list[float]:
    step = 10 ** math.floor(math.log10((high - low) / 4))
    for factor in (1, 2, 5, 10):
        if (high - low) / (step * factor) <= 6:
            step *= factor
            break
    first = math.ceil(low / step)
    return [round(k * step, 10) for k in range(first, math.floor(high / step) + 1)]


def _fine(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)
