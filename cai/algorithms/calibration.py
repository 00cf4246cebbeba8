"""How far probabilities can be believed, and how far a mean can: calibration and intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, stdtrit

Array = npt.NDArray[np.float64]

_COLDEST, _HOTTEST = 0.01, 100.0


class Bin(NamedTuple):
    """Predictions of similar size: how many, their mean, and the mean of what came true."""

    size: int
    predicted: float
    observed: float


class Interval(NamedTuple):
    """An estimate and the bounds of its interval; these are nan if one cannot be had."""

    value: float
    low: float
    high: float


class Predictions(NamedTuple):
    """Probabilities and what came true, [N] each; the latter in [0, 1], so it may be soft."""

    probabilities: Array
    labels: Array


def fold(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> Predictions:
    """Turn each comparison round so that the predicted side comes first.

    Which reply is called A is arbitrary; if it is always the better one, plain bins see only
    labels of 1. Folded predictions do not depend on the order; one of 1/2 is right half the time.

    Args:
        probabilities: That A is better, [N].
        labels: Whether A is, [N] in [0, 1].
    """
    p, y = _checked(probabilities, labels)
    return Predictions(np.maximum(p, 1 - p), np.where(p > 0.5, y, np.where(p < 0.5, 1 - y, 0.5)))


def reliability(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, bins: int = 10, equal_mass: bool = False
) -> list[Bin]:
    """Sort predictions into bins, to be drawn as a reliability diagram.

    Args:
        probabilities: [N].
        labels: [N] in [0, 1].
        bins: How many; empty ones are left out.
        equal_mass: True: as many predictions in each bin, up to one (equal predictions may part);
            False: bins of equal width, [0, 1/bins) and so on, 1 belongs to the last.
    """
    p, y = _checked(probabilities, labels)
    order = np.argsort(p, kind="stable")
    if equal_mass:
        parts = np.array_split(order, bins)
    else:
        edges = np.arange(1, bins) / bins
        parts = np.split(order, np.searchsorted(p[order], edges, side="left"))
    return [
        Bin(len(part), float(p[part].mean()), float(y[part].mean())) for part in parts if len(part)
    ]


def expected_calibration_error(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, bins: int = 10, equal_mass: bool = False
) -> float:
    """ECE = sum_b n_b / N |predicted_b - observed_b| over the bins of ``reliability``.

    Naeini et al. (2015). It is above 0 even for perfect probabilities, by about
    sum_b sqrt(2 n_b v_b / pi) / N with v_b the mean p (1 - p) in the bin: compare only sets of
    about equal size.
    """
    found = reliability(probabilities, labels, bins, equal_mass)
    gaps = sum(part.size * abs(part.predicted - part.observed) for part in found)
    return gaps / sum(part.size for part in found)


def sigmoid(logits: npt.ArrayLike) -> Array:
    """1 / (1 + exp(-z)), without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * np.asarray(logits, dtype=np.float64))))


def fit_temperature(logits: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Temperature T that minimises the log loss of sigma(z / T) (Guo et al. 2017).

    The loss is convex in a = 1 / T with slope mean_n (sigma(a z) - y) z, whose root is found by
    bisection of log T.

    Args:
        logits: z, log-odds or differences of scores, [N]; from held-out data.
        labels: y, [N] in [0, 1].

    Returns:
        T in [0.01, 100]: the lower end if every logit has the right sign, the upper one if they
        say nothing of the labels or the opposite.
    """
    z, y = _checked(logits, labels)
    coldest, hottest = np.log(_COLDEST), np.log(_HOTTEST)
    for _ in range(60):
        middle = (coldest + hottest) / 2
        slope = np.mean((sigmoid(z * np.exp(-middle)) - y) * z)
        if slope > 0:
            coldest = middle
        else:
            hottest = middle
    return float(np.exp((coldest + hottest) / 2))


def _mean(values: Array) -> float:
    return float(values.mean())


def clustered_bootstrap(
    values: npt.ArrayLike,
    groups: Sequence[Hashable],
    statistic: Callable[[Array], float] = _mean,
    n: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Percentile bootstrap that draws whole groups, since members of a group resemble each other.

    Args:
        values: [N] or [N, ...]; the rows that are drawn.
        groups: The group of each row, for example its prompt, [N].
        statistic: What is estimated, from rows like ``values``.
        n: Number of resamples.
        seed: Of the draws.
        level: Coverage that is aimed at.

    Returns:
        The statistic of all rows and its interval; nan bounds if there are fewer than two groups.

    Raises:
        ValueError: If there are no rows, or not one group for each.
    """
    rows = np.asarray(values, dtype=np.float64)
    if not len(rows) or len(rows) != len(groups):
        raise ValueError(f"{len(rows)} rows and {len(groups)} groups: both must be N, at least 1")
    members: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    value = float(statistic(rows))
    if len(members) < 2:
        return Interval(value, float("nan"), float("nan"))
    clusters = [np.array(indices) for indices in members.values()]
    draws = np.random.default_rng(seed).integers(len(clusters), size=(n, len(clusters)))
    found = [statistic(rows[np.concatenate([clusters[i] for i in draw])]) for draw in draws]
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def student_interval(values: Sequence[float]) -> Interval | None:
    """Return the mean of n numbers with Student's 95 % interval, mean +- t s / sqrt(n).

    Args:
        values: At least two; None is returned for fewer.
    """
    n = len(values)
    if n < 2:
        return None
    mean = statistics.fmean(values)
    half = float(stdtrit(n - 1, 0.975)) * statistics.stdev(values) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half)


def share_interval(share: float, n: int) -> Interval:
    """Return a share of n independent trials with Wilson's 95 % interval (1927).

    With z = 1.96 and p the share, (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) divided by
    (1 + z^2 / n): it never leaves [0, 1], and has a width at 0 and 1, too.

    Args:
        share: In [0, 1].
        n: Trials, at least 1.
    """
    z = float(ndtri(0.975))
    middle = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    whole = 1 + z * z / n
    return Interval(share, (middle - half) / whole, (middle + half) / whole)


def _checked(first: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Array, Array]:
    p, y = np.asarray(first, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if p.ndim != 1 or p.shape != y.shape or not len(p):
        raise ValueError(f"shapes {p.shape} and {y.shape}: both must be [N] with N at least 1")
    return p, y
