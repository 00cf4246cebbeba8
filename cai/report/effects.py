"""Changes with intervals, and what can be said of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from cai.algorithms.calibration import student_interval

Z = statistics.NormalDist().inv_cdf(0.975)
FEWEST = 6
"""Prompts below which nothing is concluded: a sign test of five that agree has p = 0.06."""


class Trend(StrEnum):
    """What an interval says of a change."""

    rises = "rises"
    falls = "falls"
    unclear = "unclear"


@dataclass(frozen=True)
class Effect:
    """An estimate, its 95 % interval, and how many prompts or comparisons it rests on.

    The bounds are None where there is no interval.
    """

    value: float
    low: float | None
    high: float | None
    n: int

    def trend(self, reference: float = 0.0) -> Trend:
        """Say on which side of a reference the whole interval lies."""
        if self.low is None or self.high is None or self.n < FEWEST:
            return Trend.unclear
        if self.low > reference:
            return Trend.rises
        return Trend.falls if self.high < reference else Trend.unclear


def mean_change(before: Mapping[str, float], after: Mapping[str, float]) -> Effect | None:
    """Mean of the differences d of paired numbers, with Student's interval d +- t s / sqrt(n).

    Args:
        before: By prompt.
        after: By prompt; only prompts in both count. None is returned if there are none.
    """
    gaps = [after[key] - before[key] for key in before if key in after]
    if not gaps:
        return None
    found = student_interval(gaps)
    if found is None:
        return Effect(gaps[0], None, None, 1)
    return Effect(*found, len(gaps))


def share_change(before: Mapping[str, float], after: Mapping[str, float]) -> Effect | None:
    """Mean of the differences d of paired shares, with the adjusted Wald interval.

    Agresti and Min (2005) add half a pair to each of the four ways in which two flags may fall, so
    that the interval has a width where nothing was seen to change: with n pairs, sum d = S and
    sum d^2 = Q it is S / (n + 2) +- z sqrt(((Q + 1) / (n + 2) - (S / (n + 2))^2) / (n + 2)). Shares
    of several samples are differences between -1 and 1 and enter likewise.

    Args:
        before: Share by prompt.
        after: Share by prompt; only prompts in both count. None is returned if there are none.
    """
    gaps = [after[key] - before[key] for key in before if key in after]
    if not gaps:
        return None
    n = len(gaps) + 2
    middle = sum(gaps) / n
    spread = (sum(gap * gap for gap in gaps) + 1) / n - middle * middle
    half = Z * math.sqrt(spread / n)
    low, high = max(-1.0, middle - half), min(1.0, middle + half)
    return Effect(statistics.fmean(gaps), low, high, len(gaps))


def share(value: float, n: int) -> Effect:
    """Put Wilson's (1927) interval around a share of n; ties may count half."""
    centre = (value + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(value * (1 - value) / n + Z * Z / (4 * n * n))
    return Effect(value, centre - half, centre + half, n)
