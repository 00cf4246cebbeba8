import math

import numpy as np
import pytest

from cai.algorithms.arms import mean_arms, rate_arms
from cai.algorithms.elo import ELO_PER_NAT


def drawn(arms=3, seeds=2, prompts=20, seed=0):
    draw = np.random.default_rng(seed)
    shape = (seeds, prompts)
    return {f"a{k}": k / 2 + draw.normal(size=shape) for k in range(arms)}


def test_two_arms_in_closed_form():
    # One prompt won with 3/4, one with 1/2: on average 5/8, whose odds are 5/3.
    found = rate_arms({"a": [[math.log(3), 0.0]], "b": [[0.0, 0.0]]})
    effect = found.against("a", "b")
    assert effect.value == pytest.approx(ELO_PER_NAT * math.log(5 / 3), rel=1e-9)
    assert math.isnan(effect.seeds_sd)
    assert effect.low < effect.value < effect.high


def test_the_ratings_maximise_the_likelihood():
    scores = drawn()
    theta = rate_arms(scores).theta
    for a in range(3):
        expected = sum(1 / (1 + math.exp(theta[b] - theta[a])) for b in range(3) if b != a)
        met = sum(
            np.mean(1 / (1 + np.exp(-(scores[f"a{a}"][:, None] - scores[f"a{b}"][None]))))
            for b in range(3)
            if b != a
        )
        assert expected == pytest.approx(met, rel=1e-9)
    assert theta.sum() == pytest.approx(0, abs=1e-12)


def test_what_a_prompt_adds_is_what_changes_without_it():
    """The influence of a prompt is, for many prompts, what leaving it out takes away."""
    scores = drawn(prompts=400)
    found = rate_arms(scores)
    assert np.abs(found.influence.sum(0)).max() < 1e-9
    for prompt in (0, 7):
        rest = {arm: np.delete(table, prompt, 1) for arm, table in scores.items()}
        change = found.theta - rate_arms(rest).theta
        np.testing.assert_allclose(change, found.influence[prompt], atol=5e-5)


def test_an_arm_against_itself_and_weights_that_are_no_contrast():
    found = rate_arms(drawn())
    assert found.against("a1", "a1").value == 0
    assert found.against("a1", "a0").value == -found.against("a0", "a1").value
    with pytest.raises(ValueError, match="add up to 0"):
        found.effect({"a0": 1.0})


def test_seeds_that_differ_widen_the_interval_and_ask_for_more_of_them():
    draw = np.random.default_rng(3)
    alike = {arm: draw.normal(size=(4, 200)) for arm in "ab"}
    apart = {arm: table + 2 * draw.normal(size=(4, 1)) for arm, table in alike.items()}
    few, many = (rate_arms(scores).against("a", "b") for scores in (alike, apart))
    assert many.high - many.low > 2 * (few.high - few.low)
    calm, wild = (rate_arms(scores).needed("a", "b", 60).seeds for scores in (alike, apart))
    assert calm < wild


@pytest.mark.parametrize("scores", [{"a": [[1, 2]]}, {"a": [[1, 2]], "b": [[1, 2, 3]]}])
def test_tables_that_do_not_fit_are_refused(scores):
    with pytest.raises(ValueError, match="same two or more prompts"):
        rate_arms(scores)


def test_intervals_hold_the_truth():
    """Two seeds, 40 prompts, arms that are alike: nineteen times of twenty, or nearly."""
    held = 0
    for repeat in range(150):
        draw = np.random.default_rng(repeat)
        base = draw.normal(size=40)
        scores = {
            arm: base + draw.normal(0, 0.3, (2, 1)) + draw.normal(0, 0.8, (2, 40)) for arm in "abcd"
        }
        effect = rate_arms(scores).against("b", "a")
        held += effect.low <= 0 <= effect.high
    assert 0.9 < held / 150 < 0.995


def test_means_are_means_with_the_interval_of_paired_differences():
    """One seed each: the interval of a difference is Student's of the paired differences."""
    a, b = np.array([1.0, 0, 1, 1, 0, 1]), np.array([0.0, 0, 1, 0, 0, 1])
    found = mean_arms({"a": [a], "b": [b]})
    effect, gaps = found.against("a", "b"), a - b
    half = 2.570582 * gaps.std(ddof=1) / math.sqrt(6)  # t of 5 degrees of freedom
    assert effect.value == pytest.approx(gaps.mean())
    assert (effect.low, effect.high) == pytest.approx((gaps.mean() - half, gaps.mean() + half))
    assert found.level("a").value == pytest.approx(4 / 6)


def test_a_rating_has_no_level_of_its_own():
    with pytest.raises(ValueError, match="against others only"):
        rate_arms(drawn()).level("a0")
