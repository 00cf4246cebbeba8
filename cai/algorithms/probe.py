"""A linear read-out of representations: the direction that tells better from worse."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cai.algorithms.calibration import Array

_STEPS = 50
_CLOSE = 1e-10
_FLAT = 1e-12


def fit_direction(differences: npt.ArrayLike, shrinkage: float) -> Array:
    """Fit w so that sigma(w x_n) is the probability that the first side of pair n is the better.

    Minimises sum_n log(1 + exp(-w z_n)) + shrinkage / 2 |w|^2, where z_n is x_n with every feature
    divided by its root mean square and by sqrt(D), so that the same shrinkage suits any number of
    features. There is no constant: swapping the sides of a pair changes the sign alone. This is a
    linear probe (Alain & Bengio 2016) for the model of Bradley & Terry (1952). By the representer
    theorem w = sum_n a_n z_n, so Newton's method needs matrices of N x N only.

    Args:
        differences: x_n, representation of the better side less that of the worse, [N, D].
        shrinkage: Above 0; the larger, the nearer to the direction of the mean difference.

    Returns:
        Weights of the differences as they are given, [D].

    Raises:
        ValueError: If there is no pair.
    """
    x = np.asarray(differences, dtype=np.float64)
    if x.ndim != 2 or not len(x):
        raise ValueError("a direction needs at least one pair, as a matrix [N, D]")
    spread = np.sqrt(np.square(x).mean(0))
    scale = np.divide(
        1, spread * np.sqrt(x.shape[1]), where=spread > _FLAT, out=np.zeros_like(spread)
    )
    z = x * scale
    gram = z @ z.T
    a = np.zeros(len(z))
    for _ in range(_STEPS):
        fitted = gram @ a
        wrong = 1 / (1 + np.exp(fitted))  # sigma(-f), the slope of the loss
        weight = wrong * (1 - wrong)
        system = shrinkage * np.eye(len(z)) + weight[:, None] * gram
        new = np.linalg.solve(system, weight * fitted + wrong)
        moved = np.abs(new - a).max()
        a = new
        if moved < _CLOSE:
            break
    return np.asarray((z.T @ a) * scale)
