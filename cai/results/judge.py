"""Rows of the judge: how far it can be trusted."""

from __future__ import annotations

from dataclasses import dataclass

from cai.results.common import Metric, ReliabilityBin


@dataclass(frozen=True)
class JudgeExam:
    """A judge on comparisons with a known answer that it has not seen.

    Attributes:
        axis: What was compared: harmlessness or helpfulness.
        whose: Whose answers they are: ``data`` or ``people``.
        n: How many there were.
        unread: Those to which the judge gave no answer that can be read.
        accuracy: Share that it ranks rightly; a tie counts half.
        ece: Expected calibration error of its probabilities; None if it answered nothing.
        longer_wins: Accuracy of choosing the longer reply, the floor that it must beat.
        reliability: The bins behind ``ece``.
    """

    axis: str
    whose: str
    n: int
    unread: int
    accuracy: Metric
    ece: float | None
    longer_wins: float
    reliability: list[ReliabilityBin]


@dataclass(frozen=True)
class JudgeReport:
    """Who judges, and how well.

    Attributes:
        source: ``labels``, ``folder`` or ``endpoint``.
        models: What it is, by axis, for people to read.
        trained_on: Comparisons that it learnt from here, by axis; empty if it came ready.
        exams: What it knows.
    """

    source: str
    models: dict[str, str]
    trained_on: dict[str, int]
    exams: list[JudgeExam]
