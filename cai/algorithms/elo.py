"""One scale for many systems: Bradley-Terry ratings from pairwise comparisons, in Elo."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

ELO_PER_NAT = 400 / math.log(10)
"""Elo points per nat of log-odds: 173.7, so a score difference d of a PM is about 174 d Elo."""

RATINGS = {
    "harmlessness_elo": ("judge", "harmlessness"),
    "helpfulness_elo": ("judge", "helpfulness"),
    "harmlessness_elo_constitution": ("constitution", "harmlessness"),
    "harmlessness_elo_human": ("human", "harmlessness"),
    "helpfulness_elo_human": ("human", "helpfulness"),
}
"""What is rated: the judge and the axis of each rating that an evaluation gives."""

_LARGEST_STEP = 1.0
_ENOUGH = 1e-10


class Contest(NamedTuple):
    """One comparison of two systems' replies to a prompt.

    ``outcome`` is 1 if ``first`` won, 0 if ``second`` did, 0.5 for a tie; a judge that gives
    probabilities may give any number between.
    """

    first: str
    second: str
    outcome: float
    prompt: str


class Rating(NamedTuple):
    """Elo of a system over the anchor, its interval, and how many comparisons it took part in."""

    elo: float
    low: float
    high: float
    matches: int


class _Tally(NamedTuple):
    systems: list[str]
    wins: Array  # [prompts, systems, systems]: wins of the row's system over the column's


def fit(matches: Sequence[Contest], anchor: str, prior: float = 1.0) -> dict[str, float]:
    """Rate all systems at once by maximum likelihood (Bradley and Terry 1952).

    log L = sum_ij W_ij log sigma(theta_i - theta_j);  Elo_i = (theta_i - theta_anchor) 400 / ln 10

    W_ij counts the wins of i over j. A tie is half a win for both.

    Args:
        matches: All comparisons, of any pairs of systems.
        anchor: The system that stands at 0.
        prior: Imagined ties, added once to each pair of systems that met, so that a system which
            won every comparison gets a finite rating. 1 is half a win each way, Jeffreys' prior if
            there are two systems, and is soon outweighed; 0 is pure maximum likelihood.

    Returns:
        Elo of each system, in the order in which they appear.

    Raises:
        ValueError: If there is no comparison with the anchor, systems fall into groups that never
            met, or the likelihood has no maximum.
    """
    tally = _count(matches)
    wins = tally.wins.sum(axis=0)
    imagined = _imagined(tally, anchor, prior)
    return dict(zip(tally.systems, _solve(wins + imagined, tally, anchor).tolist(), strict=True))


def rate(
    matches: Sequence[Contest],
    anchor: str,
    *,
    prior: float = 1.0,
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Rating]:
    """Rate all systems, with intervals from a bootstrap over prompts.

    Whole prompts are drawn, because comparisons on one prompt resemble each other; the interval is
    that of the difference to the anchor.

    Args:
        matches: All comparisons, of any pairs of systems.
        anchor: The system that stands at 0.
        prior: As in ``fit``, but above 0: a resample may leave a system without a loss.
        samples: Number of resamples.
        seed: Of the draws.
        level: Coverage that is aimed at.

    Returns:
        Ratings by system; the bounds are nan if there is only one prompt.

    Raises:
        ValueError: As in ``fit``, or if ``prior`` is 0.
    """
    if prior <= 0:
        raise ValueError(f"the prior is {prior} and must be above 0 where intervals are wanted")
    estimates = fit(matches, anchor, prior)
    tally = _count(matches)
    prompts, size = len(tally.wins), len(tally.systems)
    draws = np.random.default_rng(seed).multinomial(prompts, [1 / prompts] * prompts, size=samples)
    wins = (draws @ tally.wins.reshape(prompts, -1)).reshape(samples, size, size)
    found = _solve(wins + _imagined(tally, anchor, prior), tally, anchor)
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2], axis=0)
    if prompts < 2:
        low = high = np.full(size, np.nan)
    played = [sum(name in match[:2] for match in matches) for name in tally.systems]
    return {
        name: Rating(estimates[name], float(low[i]), float(high[i]), played[i])
        for i, name in enumerate(tally.systems)
    }


def _count(matches: Sequence[Contest]) -> _Tally:
    systems = list(dict.fromkeys(name for match in matches for name in match[:2]))
    place = {name: i for i, name in enumerate(systems)}
    prompts = {name: i for i, name in enumerate(dict.fromkeys(match.prompt for match in matches))}
    wins = np.zeros((len(prompts), len(systems), len(systems)))
    for match in matches:
        if match.first == match.second or not 0 <= match.outcome <= 1:
            raise ValueError(f"not a comparison of two systems with an outcome in [0, 1]: {match}")
        i, j, k = place[match.first], place[match.second], prompts[match.prompt]
        wins[k, i, j] += match.outcome
        wins[k, j, i] += 1 - match.outcome
    return _Tally(systems, wins)


def _imagined(tally: _Tally, anchor: str, prior: float) -> Array:
    """Half the prior as a win each way between systems that met, after checking the graph."""
    if anchor not in tally.systems:
        raise ValueError(f"the anchor {anchor!r} is in no comparison; systems: {tally.systems}")
    wins = tally.wins.sum(axis=0)
    met = wins + wins.T > 0
    groups = {tuple(np.array(tally.systems)[row].tolist()) for row in _reachable(met)}
    if len(groups) > 1:
        listed = " | ".join(", ".join(group) for group in sorted(groups))
        raise ValueError(
            f"there is no common scale, since these groups never met: {listed}; compare any system "
            "of one group with any of another"
        )
    # Ford (1957): the maximum exists if no group of systems won everything against the others.
    if prior == 0 and not _reachable(wins > 0).all():
        raise ValueError("some systems never lost to the others, so their ratings need a prior")
    imagined: Array = met * (prior / 2)
    return imagined


def _reachable(edges: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which column can be reached from which row, itself included (Warshall 1962)."""
    reach = edges | np.eye(len(edges), dtype=np.bool_)
    for middle in range(len(reach)):
        reach = reach | (reach[:, middle, None] & reach[None, middle])
    return reach


def _solve(wins: Array, tally: _Tally, anchor: str) -> Array:
    """Maximise the likelihood by Newton's method: [..., systems, systems] to Elo [..., systems].

    The log-likelihood is concave; steps are shortened to stay where its curvature is known.
    """
    place = tally.systems.index(anchor)
    size = len(tally.systems)
    free = np.arange(size) != place
    games = wins + np.swapaxes(wins, -1, -2)
    theta = np.zeros(wins.shape[:-1])
    for _ in range(200):
        expected = 0.5 * (1 + np.tanh(0.5 * (theta[..., :, None] - theta[..., None, :])))
        slope = (wins - games * expected).sum(-1)
        coupling = games * expected * (1 - expected)
        curvature = np.eye(size) * coupling.sum(-1)[..., None] - coupling
        reduced = curvature[..., free, :][..., :, free]
        step = np.zeros_like(theta)
        step[..., free] = np.linalg.solve(reduced, slope[..., free, None])[..., 0]
        largest = np.abs(step).max(axis=-1, keepdims=True)
        theta += step * np.minimum(1, _LARGEST_STEP / np.maximum(largest, _ENOUGH))
        if largest.max() < _ENOUGH:
            break
    ratings: Array = theta * ELO_PER_NAT
    return ratings
