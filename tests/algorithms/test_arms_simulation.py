"""Arms of known strength, with noise of prompts, seeds and replies: are they recovered?

One judge for all is held against the way of old, in which the preference model that an arm was
trained with, whose scores label noise and smoothing shrink, judged that arm.
"""

import math

import numpy as np
import pytest

from cai.algorithms.arms import rate_arms
from cai.algorithms.elo import ELO_PER_NAT

STRENGTHS = {"start": 0.0, "a": 0.3, "b": 0.6, "c": 1.0, "d": 0.2}
SHRUNK = {"start": 1.0, "a": 1.0, "b": 1.0, "c": 0.3, "d": 0.7}
"""What the label noise and smoothing of each arm leave of its own judge's scores."""
SEED, SHARED, ARM, REPLY = 0.15, 0.5, 0.3, 0.8
"""Standard deviations in nats: between seeds, prompts, prompts of an arm, replies."""
SEEDS, PROMPTS, REPEATS = 3, 80, 200


def scores(draw, seeds=SEEDS, prompts=PROMPTS, seed_shape=(SEEDS, 1)):
    shared = draw.normal(0, SHARED, prompts)
    return {
        arm: strength + shared
        + draw.normal(0, SEED, seed_shape)
        + draw.normal(0, ARM, (1, prompts))
        + draw.normal(0, REPLY, (seeds, prompts))
        for arm, strength in STRENGTHS.items()
    }  # fmt: skip


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def by_its_own_judge(found, arm):
    """Rate an arm against the start by the arm's own judge, with an interval over prompts."""
    gap = SHRUNK[arm] * (found[arm][:, None] - found["start"][None])
    wins = sigmoid(gap).mean((0, 1))
    mean, error = wins.mean(), wins.std(ddof=1) / math.sqrt(len(wins))
    low, high = (np.clip(mean + z * error, 1e-6, 1 - 1e-6) for z in (-1.96, 1.96))
    return [ELO_PER_NAT * math.log(p / (1 - p)) for p in (mean, low, high)]


@pytest.fixture(scope="module")
def truth():
    """What arms are worth with 200,000 prompts and a seed for each."""
    return rate_arms(scores(np.random.default_rng(99), 1, 200_000, (1, 200_000)))


@pytest.fixture(scope="module")
def experiments():
    return [scores(np.random.default_rng(1000 + n)) for n in range(REPEATS)]


def test_one_judge_recovers_size_and_order_at_the_nominal_rate(truth, experiments):
    held = ordered = 0
    for found in map(rate_arms, experiments):
        for arm in ("a", "b", "c", "d"):
            effect = found.against(arm, "start")
            held += effect.low <= truth.against(arm, "start").value <= effect.high
        ordered += found.against("c", "b").value > 0
    assert 0.92 <= held / (4 * REPEATS) <= 0.98
    assert ordered / REPEATS > 0.9, "the best arm is found to be the best"


def test_judges_of_their_own_do_not(truth, experiments):
    held = ordered = 0
    for found in experiments:
        rated = {arm: by_its_own_judge(found, arm) for arm in ("a", "b", "c", "d")}
        for arm, (_, low, high) in rated.items():
            held += low <= truth.against(arm, "start").value <= high
        ordered += rated["c"][0] > rated["b"][0]
    assert held / (4 * REPEATS) < 0.8
    assert ordered / REPEATS < 0.1, "the best arm looks worse than another"
