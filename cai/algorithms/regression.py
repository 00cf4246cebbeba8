"""How well predicted numbers agree with given ones: size of the error, and order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def root_mean_square_error(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """sqrt(mean_n (predicted_n - truth_n)^2), in the unit of the numbers, [N] each."""
    p, y = _checked(predicted, truth)
    return float(np.sqrt(np.square(p - y).mean()))


def ranks(values: npt.ArrayLike) -> Array:
    """Places from 1 for the smallest; equal values share the mean of their places: [N] to [N]."""
    _, place, counts = np.unique(
        np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True
    )
    last = np.cumsum(counts)
    found: Array = (last - (counts - 1) / 2)[place]
    return found


def rank_correlation(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """Spearman's (1904) rho: the correlation of ranks; nan where one side does not vary."""
    p, y = (ranks(side) for side in _checked(predicted, truth))
    p, y = p - p.mean(), y - y.mean()
    scale = np.sqrt(np.square(p).sum() * np.square(y).sum())
    return float((p * y).sum() / scale) if scale > 0 else float("nan")


def _checked(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> tuple[Array, Array]:
    p, y = np.asarray(predicted, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if p.ndim != 1 or p.shape != y.shape or not len(p):
        raise ValueError(f"shapes {p.shape} and {y.shape}: both must be [N] with N at least 1")
    return p, y
