"""How far people who judge the same things agree, beyond what chance would give."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def krippendorff(units: Sequence[Sequence[float]]) -> float | None:
    r"""Krippendorff's alpha for numbers, with the squared difference as the distance.

    .. math::
        \alpha = 1 - D_o / D_e, \quad
        D_o = \frac{1}{n} \sum_u \frac{1}{m_u - 1} \sum_{i \ne j \in u} (v_i - v_j)^2, \quad
        D_e = \frac{1}{n (n - 1)} \sum_{i \ne j} (v_i - v_j)^2

    over the m_u values of each unit u that has at least two, n of them in all. 1 is perfect
    agreement, 0 what chance gives, and below 0 people disagree systematically. Who gave a value
    does not matter, and not everybody need judge every unit.

    Source: Krippendorff, Computing Krippendorff's Alpha-Reliability (2011).

    Args:
        units: The values that each unit was given, by whomever.

    Returns:
        Alpha; None if no unit has two values, or all values are one and the same.
    """
    shared = [np.asarray(unit, dtype=np.float64) for unit in units if len(unit) > 1]
    if not shared:
        return None
    every = np.concatenate(shared)
    expected = _differences(every) / (len(every) - 1)
    if expected == 0:
        return None
    observed = sum(_differences(unit) / (len(unit) - 1) for unit in shared)
    return 1 - float(observed / expected)


def of_comparisons(units: Sequence[Sequence[float]]) -> float | None:
    """Krippendorff's alpha of comparisons, whose values are shares of the side named first.

    Which side is named first is arbitrary, so each comparison counts in both directions, as x and
    as 1 - x: else people who all prefer one system would seem to agree by chance alone.

    Args:
        units: The values in [0, 1] that each comparison was given.

    Returns:
        Alpha; None if no comparison has two values, or all of them are ties.
    """
    return krippendorff([*units, *([1 - value for value in unit] for unit in units)])


def _differences(values: Array) -> float:
    """Sum the squared differences of all ordered pairs: 2 n sum v^2 - 2 (sum v)^2."""
    centred = values - values.mean()
    return float(2 * len(values) * (centred**2).sum())
