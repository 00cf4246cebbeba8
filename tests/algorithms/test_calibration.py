import math
from itertools import pairwise

import numpy as np
import pytest

from cai.algorithms.calibration import (
    clustered_bootstrap,
    expected_calibration_error,
    fit_temperature,
    fold,
    reliability,
    share_interval,
    sigmoid,
    student_interval,
)

P = [0.1, 0.2, 0.6, 0.9, 1.0]
Y = [0, 1, 1, 1, 0]


def test_equal_width_bins_by_hand():
    # Halves: (0.1, 0.2 | 0, 1) and (0.6, 0.9, 1.0 | 1, 1, 0).
    found = reliability(P, Y, bins=2)
    assert [part.size for part in found] == [2, 3]
    assert [part.predicted for part in found] == pytest.approx([0.15, 2.5 / 3])
    assert [part.observed for part in found] == pytest.approx([0.5, 2 / 3])
    # 2/5 * 0.35 + 3/5 * (2.5 - 2) / 3 = 0.14 + 0.1
    assert expected_calibration_error(P, Y, bins=2) == pytest.approx(0.24)


def test_equal_mass_bins_by_hand():
    # Five in two: three and two. (0.1, 0.2, 0.6 | 0, 1, 1) and (0.9, 1.0 | 1, 0).
    found = reliability(P, Y, bins=2, equal_mass=True)
    assert [(part.size, round(part.predicted, 12)) for part in found] == [(3, 0.3), (2, 0.95)]
    # 3/5 * |0.3 - 2/3| + 2/5 * |0.95 - 0.5| = 0.22 + 0.18
    ece = expected_calibration_error(P, Y, bins=2, equal_mass=True)
    assert ece == pytest.approx(0.4)


def test_bin_edges_belong_to_the_upper_bin_and_empty_bins_go():
    found = reliability([0.0, 0.1, 0.3, 1.0], [0, 1, 0, 1], bins=10)
    assert [(part.size, part.predicted) for part in found] == [(1, 0), (1, 0.1), (1, 0.3), (1, 1)]


def test_order_of_the_rows_does_not_matter():
    p = np.random.default_rng(0).random(200)
    y = np.random.default_rng(1).random(200) < p
    turn = np.random.default_rng(2).permutation(200)
    assert expected_calibration_error(p[turn], y[turn]) == pytest.approx(
        expected_calibration_error(p, y)
    )


def test_perfect_probabilities_have_an_ece_of_zero_only_in_expectation():
    draw = np.random.default_rng(3)
    p = draw.random(100_000)
    y = draw.random(100_000) < p
    assert expected_calibration_error(p, y) < 0.01
    assert expected_calibration_error(p**3, y) > 0.1
    # The bias at N = 500: sum_b sqrt(2 n_b v_b / pi) / N with n_b = 50, v_b the mean p (1 - p).
    edges = np.arange(11) / 10
    v = [(hi**2 / 2 - hi**3 / 3 - lo**2 / 2 + lo**3 / 3) * 10 for lo, hi in pairwise(edges)]
    bias = sum(math.sqrt(2 * 50 * each / math.pi) for each in v) / 500
    found = np.mean(
        [expected_calibration_error(p[i : i + 500], y[i : i + 500]) for i in range(0, 100_000, 500)]
    )
    assert found == pytest.approx(bias, rel=0.05)


def test_folding_makes_the_order_of_a_pair_irrelevant():
    # 0.2 that A is better, and it is not: 0.8 that B is better, and it is.
    found = fold([0.2, 0.7, 0.5], [0, 0, 1])
    assert found.probabilities.tolist() == [0.8, 0.7, 0.5]
    assert found.labels.tolist() == [1, 0, 0.5]
    p, y = np.array(P), np.array(Y)
    for ours, turned in zip(fold(p, y), fold(1 - p, 1 - y), strict=True):
        assert ours == pytest.approx(turned)


def log_loss(p, y):
    return -(y * np.log(p) + (1 - y) * np.log1p(-p)).mean()


def test_sigmoid_does_not_overflow():
    # sigma(ln 3) = 3/4
    assert sigmoid([0, math.log(3), -1e4, 1e4]).tolist() == pytest.approx([0.5, 0.75, 0, 1])


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_temperature_is_recovered(temperature):
    draw = np.random.default_rng(4)
    truth = draw.normal(scale=2, size=40_000)
    y = draw.random(40_000) < sigmoid(truth)
    assert fit_temperature(truth * temperature, y) == pytest.approx(temperature, rel=0.04)
    # Probabilities as labels, instead of draws from them: exactly.
    soft = fit_temperature(truth * temperature, sigmoid(truth))
    assert soft == pytest.approx(temperature, rel=1e-9)


def test_temperature_is_the_minimum_and_lowers_the_ece():
    draw = np.random.default_rng(5)
    truth = draw.normal(size=5_000)
    y = draw.random(5_000) < sigmoid(truth)
    loud = 4 * truth
    best = fit_temperature(loud, y)
    losses = [log_loss(sigmoid(loud / t), y) for t in (0.98 * best, best, 1.02 * best)]
    assert min(losses) == losses[1]
    before, after = (expected_calibration_error(sigmoid(loud / t), y) for t in (1, best))
    assert after < 0.03 < before


def test_temperature_at_its_ends():
    assert fit_temperature([1, -2, 3], [1, 0, 1]) == pytest.approx(0.01)
    assert fit_temperature([1, -2, 3], [0, 1, 0]) == pytest.approx(100)


def test_bootstrap_of_a_mean_by_formula():
    values = np.random.default_rng(6).normal(size=400)
    found = clustered_bootstrap(values, range(400))
    assert found.value == pytest.approx(values.mean())
    # 95 % of a mean: 2 * 1.96 * s / sqrt(N) wide.
    width = 2 * 1.96 * values.std() / 20
    assert found.high - found.low == pytest.approx(width, rel=0.1)


def test_bootstrap_is_clustered():
    values = np.random.default_rng(7).normal(size=100)
    once = clustered_bootstrap(values, range(100))
    copied = clustered_bootstrap(np.repeat(values, 9), np.repeat(np.arange(100), 9).tolist())
    assert copied == pytest.approx(once)


def test_bootstrap_draws_groups_of_any_size_and_rows_of_any_shape():
    # Two groups with means 0 and 1: resamples are {a, a}, {a, b}, {b, b}, so the mean of the rows
    # is 0, 1/4 or 1, and 95 % reach from end to end.
    found = clustered_bootstrap([0, 0, 0, 1], ["a", "a", "a", "b"])
    assert found == (0.25, 0, 1)
    # {a, b} is half of the resamples, so 40 % around the middle are 1/4 alone.
    assert clustered_bootstrap([0, 0, 0, 1], ["a", "a", "a", "b"], level=0.4) == (0.25, 0.25, 0.25)
    rows = np.array([[1.0, 2.0], [3.0, 8.0], [5.0, 10.0]])
    ratio = clustered_bootstrap(rows, "xyz", lambda r: r[:, 0].sum() / r[:, 1].sum())
    assert ratio.value == pytest.approx(9 / 20)
    assert 3 / 8 <= ratio.low < ratio.value < ratio.high <= 0.5


def test_bootstrap_options_count():
    values, groups = np.random.default_rng(8).normal(size=60), list(range(60))
    base = clustered_bootstrap(values, groups)
    assert base == clustered_bootstrap(values, groups)
    others = [
        clustered_bootstrap(values, groups, np.median),
        clustered_bootstrap(values, groups, n=50),
        clustered_bootstrap(values, groups, seed=1),
        clustered_bootstrap(values, groups, level=0.5),
    ]
    assert len({base, *others}) == 5
    assert others[3].high - others[3].low < base.high - base.low


def test_bootstrap_without_enough_to_draw():
    found = clustered_bootstrap([1.0, 3.0], ["a", "a"])
    assert found.value == 2
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    with pytest.raises(ValueError, match="0 rows"):
        clustered_bootstrap([], [])
    with pytest.raises(ValueError, match="2 rows and 1 groups"):
        clustered_bootstrap([1, 2], ["a"])


def test_shapes_that_differ_are_refused():
    for p, y in (([0.1, 0.2], [1]), ([], []), ([[0.1]], [[1]])):
        with pytest.raises(ValueError, match="both must be"):
            expected_calibration_error(p, y)


def test_students_interval_by_hand():
    found = student_interval([1.0, 2.0, 3.0, 6.0])
    half = 3.182446 * math.sqrt(14 / 3) / 2  # t of 3 degrees of freedom; s^2 = 14 / 3
    assert found == pytest.approx((3.0, 3.0 - half, 3.0 + half), abs=1e-5)
    assert student_interval([4.0]) is None


def test_wilsons_interval_by_hand():
    # z^2 = 3.841459: (0.8 + 0.192073 +- 1.959964 sqrt(0.016 + 0.009604)) / 1.384146
    assert share_interval(0.8, 10) == pytest.approx((0.8, 0.490162, 0.943318), abs=1e-5)
    assert share_interval(0.0, 10) == pytest.approx((0, 0, 3.841459 / 13.841459), abs=1e-6)
    assert share_interval(1.0, 10)[1:] == pytest.approx((10 / 13.841459, 1), abs=1e-6)
