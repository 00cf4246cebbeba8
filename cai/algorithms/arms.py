"""Arms of an experiment on one scale: ratings from one judge's scores, repeated seeds, effects.

An arm is a setting that was trained with one or more seeds; every one of its systems answered the
same prompts, and one judge scored all replies. Two things make a rating uncertain: the prompts that
were drawn, and the training that another seed would have made. Prompts are shared by all arms, so
their part cancels in comparisons as far as arms react alike; seeds are not shared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

from cai.algorithms.elo import ELO_PER_NAT

Array = npt.NDArray[np.float64]

_STEPS = 100
_ENOUGH = 1e-10


class Effect(NamedTuple):
    """A contrast of arms, with its 95 % interval and where its variance comes from.

    Attributes:
        value: The estimate.
        low: Lower bound.
        high: Upper bound.
        prompts_sd: Standard error from the prompts.
        seeds_sd: Standard error from repeated training; nan if no arm was repeated.
    """

    value: float
    low: float
    high: float
    prompts_sd: float
    seeds_sd: float


class Needed(NamedTuple):
    """Seeds per arm and prompts that would show an effect; None where more of it can't."""

    seeds: int | None
    prompts: int | None


@dataclass(frozen=True)
class ArmRatings:
    """Ratings or means of K arms, linearised for intervals of any contrast.

    Attributes:
        arms: Their names.
        theta: Ratings in nats, mean 0, or means; [K].
        influence: What each prompt adds to each rating, [P, K]; sums to 0 over prompts.
        shifts: Per arm, what each seed and prompt adds to its distance from the others, [S_a, P].
        unit: What effects are told in: Elo per nat for ratings, 1 for means.
    """

    arms: tuple[str, ...]
    theta: Array
    influence: Array
    shifts: tuple[Array, ...]
    unit: float = ELO_PER_NAT

    @property
    def seeds(self) -> int:
        """Degrees of freedom from repeated training: seeds beyond the first of each arm."""
        return sum(len(part) - 1 for part in self.shifts)

    def seed_variance(self) -> float:
        """Variance of an arm between seeds, in squares of theta, pooled; nan if unknown.

        What a seed's replies vary by from prompt to prompt is in the variance over prompts already
        and is taken off.
        """
        if not self.seeds:
            return math.nan
        between = noise = 0.0
        for part in self.shifts:
            s, p = part.shape
            if s < 2:
                continue
            means = part.mean(1)
            rest = part - means[:, None] - part.mean(0) + part.mean()
            between += float(np.square(means - means.mean()).sum())
            noise += float(np.square(rest).sum()) / ((p - 1) * p)
        return (between - noise) / self.seeds

    def effect(self, weights: Mapping[str, float], level: float = 0.95) -> Effect:
        """Estimate a contrast, sum_a w_a theta_a, with weights that add up to 0.

        The variance is that over prompts, sum_p (w i_p - mean)^2 P / (P - 1), and that over seeds,
        sum_a w_a^2 s^2 / S_a with s^2 pooled over arms; the quantile is Student's, with the degrees
        of freedom of Satterthwaite (1946).

        Raises:
            ValueError: If the weights do not add up to 0.
        """
        w = np.array([weights.get(arm, 0.0) for arm in self.arms])
        if abs(w.sum()) > 1e-9:
            raise ValueError("the weights of a contrast add up to 0")
        return self._estimate(w, level)

    def level(self, arm: str, level: float = 0.95) -> Effect:
        """Estimate one arm's own mean, which has a zero of its own; ratings have none.

        Raises:
            ValueError: If these are ratings.
        """
        if self.unit != 1:
            raise ValueError("a rating is known against others only: ask for a contrast")
        return self._estimate(np.array([float(name == arm) for name in self.arms]), level)

    def _estimate(self, w: Array, level: float) -> Effect:
        value = float(w @ self.theta)
        prompts = len(self.influence)
        own = self.influence @ w
        over_prompts = float(np.square(own - own.mean()).sum()) * prompts / max(1, prompts - 1)
        share = sum(w[a] ** 2 / len(part) for a, part in enumerate(self.shifts))
        found = self.seed_variance()
        over_seeds = max(0.0, found) * share if math.isfinite(found) else 0.0
        parts = [(over_prompts, prompts - 1), (over_seeds, self.seeds)]
        total = over_prompts + over_seeds
        slack = sum(v**2 / n for v, n in parts if n > 0 and v > 0)
        freedom = total**2 / slack if slack else math.inf
        reach = float(student.ppf((1 + level) / 2, freedom)) * math.sqrt(total)
        middle, low, high = (self.unit * x for x in (value, value - reach, value + reach))
        seeds_sd = self.unit * math.sqrt(over_seeds) if math.isfinite(found) else math.nan
        return Effect(middle, low, high, self.unit * math.sqrt(over_prompts), seeds_sd)

    def against(self, arm: str, anchor: str) -> Effect:
        """Estimate how far one arm is above another."""
        return self.effect({arm: 1.0, anchor: -1.0} if arm != anchor else {})

    def needed(self, a: str, b: str, size: float, power: float = 0.8) -> Needed:
        """Say how many seeds, or prompts, would show a difference between two arms of this size.

        The one is what is needed with as many prompts as there are, the other with as many seeds:
        a two-sided test at 5 % and the given power, by the normal approximation.
        """
        z = float(student.ppf(0.975, math.inf) + student.ppf(power, math.inf))
        allowed = (size / self.unit / z) ** 2
        effect = self.against(a, b)
        prompts = (effect.prompts_sd / self.unit) ** 2
        per_seed = 2 * max(0.0, self.seed_variance())
        rest = allowed - prompts
        seeds = math.ceil(per_seed / rest) if rest > 0 and math.isfinite(per_seed) else None
        now = 0.0 if math.isnan(effect.seeds_sd) else (effect.seeds_sd / self.unit) ** 2
        left = allowed - now
        more = math.ceil(prompts * len(self.influence) / left) if left > 0 else None
        return Needed(max(1, seeds) if seeds is not None else None, more)


def rate_arms(scores: Mapping[str, npt.ArrayLike]) -> ArmRatings:
    """Rate arms by one judge's scores of their replies to the same prompts.

    Each two systems of different arms meet on each prompt; the first wins with probability
    sigma(score - score'), as a preference model means its scores. The ratings maximise

        sum_p sum_{a,b} mean_{s,t} y_{as,bt,p} log sigma(theta_a - theta_b)

    (Bradley and Terry 1952). How much each prompt and seed moves them is the gradient of its part
    times the inverse of the curvature (Hajek projection), from which intervals follow without
    resampling.

    Args:
        scores: Of each arm, [S_a, P]: seeds by prompts, replies to one prompt averaged.

    Raises:
        ValueError: If there are fewer than two arms or prompts, or arms differ in their prompts.
    """
    arms, tables = tuple(scores), _tables(scores)
    wins = _wins(tables)
    theta = _solve(wins.mean(-1))
    expected = _sigmoid(theta[:, None] - theta[None])
    slope = expected * (1 - expected)
    curvature = np.diag(slope.sum(1) - np.diag(slope)) - slope + np.diag(np.diag(slope))
    inverse = np.linalg.pinv(curvature).astype(np.float64)
    gradient = (wins - expected[..., None] * (1 - np.eye(len(arms)))[..., None]).sum(1)
    influence = gradient.T @ inverse / wins.shape[-1]
    shifts = tuple(_shifts(a, tables, expected, inverse) for a in range(len(arms)))
    return ArmRatings(arms, theta, influence, shifts)


def mean_arms(values: Mapping[str, npt.ArrayLike]) -> ArmRatings:
    """Average something of each arm's replies to the same prompts, such as whether one is evasive.

    Intervals are made as those of ratings are.

    Args:
        values: Of each arm, [S_a, P]: seeds by prompts.

    Raises:
        ValueError: As in ``rate_arms``.
    """
    tables = _tables(values)
    means = np.array([table.mean() for table in tables])
    prompts = tables[0].shape[1]
    influence = np.stack([t.mean(0) - m for t, m in zip(tables, means, strict=True)], 1) / prompts
    shifts = tuple(table - m for table, m in zip(tables, means, strict=True))
    return ArmRatings(tuple(values), means, influence, shifts, unit=1.0)


def _tables(scores: Mapping[str, npt.ArrayLike]) -> list[Array]:
    tables = [np.atleast_2d(np.asarray(rows, dtype=np.float64)) for rows in scores.values()]
    widths = {table.shape[1] for table in tables}
    if len(tables) < 2 or len(widths) != 1 or min(widths) < 2:
        raise ValueError("two or more arms with scores on the same two or more prompts are needed")
    return tables


def _wins(tables: Sequence[Array]) -> Array:
    """Mean outcome of each arm against each other on each prompt, [K, K, P]; 0 against itself."""
    size, prompts = len(tables), tables[0].shape[1]
    wins = np.zeros((size, size, prompts))
    for a in range(size):
        for b in range(a + 1, size):
            met = _sigmoid(tables[a][:, None] - tables[b][None])
            wins[a, b] = met.mean((0, 1))
            wins[b, a] = 1 - wins[a, b]
    return wins


def _shifts(a: int, tables: Sequence[Array], expected: Array, inverse: Array) -> Array:
    """How far each seed and prompt of an arm moves it away from the others, [S, P]."""
    others = [b for b in range(len(tables)) if b != a]
    found = np.zeros(tables[a].shape)
    for b in others:
        met = _sigmoid(tables[a][:, None] - tables[b][None]).mean(1) - expected[a, b]
        direction = inverse[a] - inverse[b]  # +1 for the winner, -1 for the loser
        found += met * float(direction[a] - direction[others].mean())
    return found


def _solve(wins: Array) -> Array:
    """Maximise the likelihood of mean outcomes [K, K] by Newton's method; ratings add up to 0."""
    size = len(wins)
    theta = np.zeros(size)
    for _ in range(_STEPS):
        expected = _sigmoid(theta[:, None] - theta[None]) * (1 - np.eye(size))
        slope = expected * expected.T
        step = np.linalg.pinv(np.diag(slope.sum(1)) - slope) @ (wins - expected).sum(1)
        theta += step * min(1.0, 1.0 / max(float(np.abs(step).max()), _ENOUGH))
        if np.abs(step).max() < _ENOUGH:
            break
    found: Array = theta - theta.mean()
    return found


def _sigmoid(x: Array) -> Array:
    found: Array = 0.5 * (1 + np.tanh(0.5 * x))
    return found
