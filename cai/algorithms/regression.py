"""How well predicted numbers agree with given ones: size of the error, and order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

Array = npt.NDArray[np.float64]


def root_mean_square_error(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """sqrt(mean_n (predicted_n - truth_n)^2), in the unit of the numbers, [N] each."""
    p, y = _checked(predicted, truth)
    return float(np.sqrt(np.square(p - y).mean()))


def rank_correlation(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """Spearman's (1904) rho: the correlation of ranks; nan where one side does not vary."""
    p, y = _checked(predicted, truth)
    if np.ptp(p) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(spearmanr(p, y).statistic)


def _checked(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> tuple[Array, Array]:
    p, y = np.asarray(predicted, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if p.ndim != 1 or p.shape != y.shape or not len(p):
        raise ValueError(f"shapes {p.shape} and {y.shape}: both must be [N] with N at least 1")
    return p, y
