"""A line of the summary: a figure, its interval, and what that shows, in words."""

from __future__ import annotations

from dataclasses import dataclass

from cai.report.cells import Cell, interval, rounded
from cai.report.effects import Effect, Trend
from cai.report.names import count


@dataclass(frozen=True)
class Finding:
    """A line of the summary.

    Attributes:
        step: Of the method.
        what: Was measured.
        trend: Of the figure.
        good: Whether that is what one wants; None if it is neither.
        verdict: In words.
        effect: The figure.
        decimals: Of the figure.
        unit: What n counts, in the singular.
        signed: Whether the figure is a change.
        section: Where the page says more.
    """

    step: str
    what: str
    trend: Trend
    good: bool | None
    verdict: str
    effect: Effect
    decimals: int
    unit: str
    signed: bool
    section: str

    @property
    def figure(self) -> Cell:
        """The figure with its interval; a change has a sign."""
        effect, decimals = self.effect, self.decimals
        text = rounded(effect.value, decimals)
        sign = "+" if self.signed and effect.value > 0 and float(text) else ""
        return Cell(sign + text, interval(effect.low, effect.high, decimals))

    @property
    def n(self) -> str:
        """What the figure rests on."""
        return count(self.effect.n, self.unit)


@dataclass(frozen=True)
class Wording:
    """How a change is told.

    Attributes:
        subject: Of the sentence.
        unit: What n counts, in the singular.
        section: Where the page says more.
        decimals: Of the figure.
        better: Whether more is better; None if it is neither.
    """

    subject: str
    unit: str
    section: str
    decimals: int = 2
    better: bool | None = True


def change(step: str, what: str, effect: Effect, wording: Wording) -> Finding:
    """Tell a change: rises, falls, or no difference that so many can show."""
    trend = effect.trend()
    told = {
        Trend.rises: f"{wording.subject} rises.",
        Trend.falls: f"{wording.subject} falls.",
        Trend.unclear: f"{wording.subject}: {nothing(effect.n, wording.unit)}.",
    }
    good = None
    if trend is not Trend.unclear and wording.better is not None:
        good = (trend is Trend.rises) == wording.better
    return Finding(
        step, what, trend, good, told[trend], effect, wording.decimals, wording.unit, True,
        wording.section,
    )  # fmt: skip


@dataclass(frozen=True)
class Floor:
    """What a share is held against, and how that is told."""

    subject: str
    name: str
    value: float
    unit: str
    section: str


def level(step: str, what: str, effect: Effect, floor: Floor) -> Finding:
    """Tell whether a share is above a floor."""
    trend = effect.trend(floor.value)
    told = {
        Trend.rises: f"{floor.subject} more often than {floor.name} ({floor.value:.2f}).",
        Trend.falls: f"{floor.subject} less often than {floor.name} ({floor.value:.2f}).",
        Trend.unclear: f"{floor.subject} about as often as {floor.name} ({floor.value:.2f}): "
        f"{nothing(effect.n, floor.unit)}.",
    }
    good = None if trend is Trend.unclear else trend is Trend.rises
    return Finding(
        step, what, trend, good, told[trend], effect, 2, floor.unit, False, floor.section
    )


def nothing(n: int, unit: str) -> str:
    """Say that a figure shows nothing."""
    return f"no difference that {count(n, unit)} can show"
