"""Numbers as text."""

from __future__ import annotations

from dataclasses import dataclass

from cai.results.common import Metric


@dataclass(frozen=True)
class Cell:
    """A cell of a table: a text, and in brackets an interval."""

    text: str
    interval: str = ""

    def __str__(self) -> str:
        """Write both on one line."""
        return f"{self.text} {self.interval}".strip()


def cells(*values: object) -> list[Cell]:
    """Write values as cells."""
    return [value if isinstance(value, Cell) else Cell(number(value)) for value in values]


def number(value: object) -> str:
    """Write a number with three decimals, a text or a count as it is, and nothing for None."""
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def estimate(metric: Metric | None, decimals: int) -> Cell:
    """Write an estimate with its interval, or nothing."""
    if metric is None or metric.value is None:
        return Cell("")
    return Cell(rounded(metric.value, decimals), interval(metric.low, metric.high, decimals))


def interval(low: float | None, high: float | None, decimals: int) -> str:
    """Write bounds in brackets, or nothing where one is missing."""
    if low is None or high is None:
        return ""
    return f"[{rounded(low, decimals)}, {rounded(high, decimals)}]"


def rounded(value: float, decimals: int) -> str:
    """Round a number; zero has no sign."""
    return f"{round(value, decimals) + 0.0:.{decimals}f}"
