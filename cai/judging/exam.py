"""What a judge knows: accuracy and calibration on comparisons whose answer is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from cai.algorithms.calibration import clustered_bootstrap, expected_calibration_error, fold
from cai.data.records import Comparison
from cai.data.splits import family
from cai.judging.judge import Judge, outcomes
from cai.results.common import Metric
from cai.results.judge import JudgeExam
from cai.results.reliability import bins_of
from cai.training.pm_metrics import longer_wins

DRAWS = 1000


class Paper(NamedTuple):
    """An exam's questions: on which axis, by whose answers."""

    axis: str
    whose: str
    comparisons: Sequence[Comparison]


def sit(judge: Judge, paper: Paper) -> JudgeExam:
    """Let a judge answer; the interval is from a bootstrap over the openings of prompts.

    Comparisons without a better side say nothing and are left out.
    """
    asked = [c for c in paper.comparisons if c.probability != 0.5]
    found = outcomes(judge, paper.axis, asked)
    read = [(p, c) for p, c in zip(found, asked, strict=True) if p is not None]
    accuracy, ece, bins = Metric(None), None, []
    if read:
        predicted = [p for p, _ in read]
        folded = fold(predicted, [float(c.probability > 0.5) for _, c in read])
        groups = [family(c.prompt.conversation) for _, c in read]
        interval = clustered_bootstrap(folded.labels, groups, n=DRAWS)
        bounds = [b if math.isfinite(b) else None for b in (interval.low, interval.high)]
        accuracy = Metric(interval.value, *bounds)
        ece = expected_calibration_error(*folded)
        bins = bins_of(*folded)
    return JudgeExam(
        axis=paper.axis,
        whose=paper.whose,
        n=len(asked),
        unread=len(asked) - len(read),
        accuracy=accuracy,
        ece=ece,
        longer_wins=longer_wins(asked),
        reliability=bins,
    )
