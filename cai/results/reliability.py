"""Reliability diagrams as rows. Apart from the rows, for these need no numerical library."""

from __future__ import annotations

import numpy.typing as npt

from cai.algorithms.calibration import reliability
from cai.results.common import ReliabilityBin


def bins_of(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> list[ReliabilityBin]:
    """Return the bins of a reliability diagram as rows."""
    return [ReliabilityBin(*part) for part in reliability(predicted, truth)]
