"""From probabilities to labels: averages, temperature, and labels hard, clamped or soft."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cai.config import Average, FeedbackConfig, LabelKind
from cai.results.labels import Opinion

TIE = 1e-6
"""A probability this near to one half is a tie: swapped orders cancel up to rounding in fp32."""
_EDGE = 1e-6
"""Probabilities are kept this far from 0 and 1 before their log-odds are averaged."""


def probability_of(opinion: Opinion, settings: FeedbackConfig) -> float | None:
    """Return the probability of A, both orders counting alike however many were read.

    None if an order that was asked can't be read: the other's position bias would stay in.
    """
    if not opinion.forward or (settings.swap and not opinion.backward):
        return None
    sides = (opinion.forward, opinion.backward)
    orders = [mean(side, settings.average) for side in sides if side]
    return mean([orders[0], *(1 - p for p in orders[1:])], settings.average)


def mean(probabilities: Sequence[float], average: Average) -> float:
    """Average probabilities as they are, or as log-odds."""
    if average is Average.probability:
        return sum(probabilities) / len(probabilities)
    odds = sum(map(log_odds, probabilities)) / len(probabilities)
    return 1 / (1 + math.exp(-odds))


def cooled(probability: float, temperature: float) -> float:
    """Divide the log-odds of a probability by a temperature; a tie stays one."""
    if temperature == 1:
        return probability
    if abs(probability - 0.5) < TIE:
        return 0.5
    return 1 / (1 + math.exp(-log_odds(probability) / temperature))


def log_odds(probability: float) -> float:
    """Return log(p / (1 - p)), finite at both ends."""
    kept = min(max(probability, _EDGE), 1 - _EDGE)
    return math.log(kept / (1 - kept))


def to_label(probability: float, settings: FeedbackConfig) -> float:
    """Make a label of a probability: hard (a tie stays 0.5), clamped, or as it is.

    Chains of thought are nearly certain, so their probabilities are clamped unless hard labels
    are asked for (Bai et al. 2022, section 4.1).
    """
    if settings.label.kind is LabelKind.hard:
        return 0.5 if abs(probability - 0.5) < TIE else float(probability > 0.5)
    if settings.label.kind is LabelKind.clamped or settings.cot:
        low, high = settings.label.clamp
        return min(max(probability, low), high)
    return probability
