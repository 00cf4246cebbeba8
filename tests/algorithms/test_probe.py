"""The fitted direction: by hand, by its gradient, against a solver, by what can't matter."""

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from cai.algorithms.probe import fit_direction


def differences(n=30, d=7, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) + rng.normal(size=d)


def scaled(x):
    return x / np.sqrt(np.square(x).mean(0)) / math.sqrt(x.shape[1])


def test_by_hand():
    # One pair, x = 2: z = 1, and the minimum is where shrinkage * w = sigma(-w). For w = ln 3 that
    # is shrinkage = (1/4) / ln 3; the weight of x itself is w / 2.
    [found] = fit_direction([[2.0]], 0.25 / math.log(3))
    assert found == pytest.approx(math.log(3) / 2, rel=1e-9)


@pytest.mark.parametrize("shrinkage", [0.01, 1.0, 100.0])
def test_the_gradient_is_zero(shrinkage):
    x = differences()
    fitted = x @ fit_direction(x, shrinkage)
    z = scaled(x)
    w = np.linalg.lstsq(z, fitted, rcond=None)[0]
    assert shrinkage * w == pytest.approx((z / (1 + np.exp(fitted))[:, None]).sum(0), rel=1e-6)


@pytest.mark.parametrize("shape", [(40, 5), (12, 60)])
def test_it_equals_logistic_regression_without_a_constant(shape):
    x, z = differences(*shape), scaled(differences(*shape))
    # Both orders of each pair, hence half the weight of the penalty.
    reference = LogisticRegression(fit_intercept=False, C=1 / (2 * 0.7), tol=1e-10, max_iter=10_000)
    reference.fit(np.r_[z, -z], [1] * len(z) + [0] * len(z))
    assert x @ fit_direction(x, 0.7) == pytest.approx(z @ reference.coef_[0], abs=1e-5)


def test_neither_units_nor_repeated_features_matter():
    x = differences()
    plain = x @ fit_direction(x, 1.0)
    units = x * np.geomspace(0.01, 100, x.shape[1])
    assert units @ fit_direction(units, 1.0) == pytest.approx(plain, rel=1e-6)
    twice = np.hstack([x, x])
    assert twice @ fit_direction(twice, 1.0) == pytest.approx(plain, rel=1e-6)


def test_a_feature_that_never_differs_has_no_weight():
    x = differences()
    x[:, 2] = 0
    assert fit_direction(x, 1.0)[2] == 0


def test_more_shrinkage_is_less_certain_and_ends_at_the_mean_difference():
    x = differences()
    loose, tight = (fit_direction(x, s) for s in (0.1, 1e6))
    assert np.abs(x @ loose).mean() > 100 * np.abs(x @ tight).mean()
    mean = x.mean(0) / np.square(x).mean(0)
    assert tight / np.linalg.norm(tight) == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)


@pytest.mark.parametrize("nothing", [[], np.zeros((0, 4))])
def test_no_pairs_are_refused(nothing):
    with pytest.raises(ValueError, match="at least one pair"):
        fit_direction(nothing, 1.0)
