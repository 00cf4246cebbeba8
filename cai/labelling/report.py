"""How far labels can be trusted: accuracy, calibration, position bias, agreement, cost."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence

from cai.algorithms.calibration import (
    expected_calibration_error,
    fold,
)
from cai.data.records import Comparison
from cai.labelling.answers import Verdict
from cai.labelling.judge import Judge
from cai.labelling.labels import TIE
from cai.results.labels import (
    Agreement,
    KnownAnswers,
    LabelCost,
    LabelledPair,
    LabelReport,
    PrincipleUse,
)
from cai.results.reliability import bins_of

UNDECIDED = 0.05
"""A label within this distance of one half decides nothing."""
KNOWN = 64
"""Comparisons with a known answer that the labeller is tested on."""


def label_report(
    judge: Judge,
    rows: Sequence[LabelledPair],
    known: Sequence[Comparison],
    other: Sequence[Comparison] = (),
    empty: int = 0,
) -> LabelReport:
    """Summarise labels, and test the labeller on comparisons whose answer is known.

    Args:
        judge: The labeller.
        rows: Labelled rows.
        known: Comparisons whose ``probability`` is a human's, of the kind that was learnt from.
        other: Likewise, of other kinds: does the labeller know better from worse there, too?
        empty: Pairs that were not labelled because a reply said nothing.
    """
    probabilities = [row.probability for row in rows if row.probability is not None]
    others = _against_truth(judge, other[:KNOWN])
    alike = _against_truth(judge, known[:KNOWN])
    return LabelReport(
        **vars(alike),
        empty=empty,
        labels=len(probabilities),
        temperature=judge.temperature,
        unreadable=sum(row.unreadable for row in rows),
        dropped=sum(row.label is None for row in rows),
        entropy=statistics.fmean(map(_entropy, probabilities)) if probabilities else None,
        undecided=_share([abs(p - 0.5) < UNDECIDED for p in probabilities]),
        position_bias=position_bias(rows),
        principles=principle_table(rows),
        agreement=agreement(rows),
        cost=LabelCost(sum(row.questions for row in rows), sum(row.tokens for row in rows)),
        other=others,
    )


def position_bias(rows: Sequence[LabelledPair]) -> float | None:
    """Mean probability given to whichever reply is shown first; 0.5 is no bias."""
    shown = [
        statistics.fmean(side)
        for row in rows
        for opinion in row.opinions
        if opinion.forward and opinion.backward
        for side in (opinion.forward, opinion.backward)
    ]
    return statistics.fmean(shown) if shown else None


def principle_table(rows: Sequence[LabelledPair]) -> list[PrincipleUse]:
    """Say how often each principle was asked and which labels it went against."""
    asked: Counter[str] = Counter()
    flipped: dict[str, list[str]] = {}
    for row in rows:
        for name, p in _sides(row).items():
            against = (p - 0.5) * ((row.probability or 0.0) - 0.5) < 0
            asked[name] += 1
            flipped.setdefault(name, []).extend([row.prompt_id] if against else [])
    return [
        PrincipleUse(name, asked[name], len(flipped[name]), flipped[name]) for name in sorted(asked)
    ]


def agreement(rows: Sequence[LabelledPair]) -> Agreement:
    """Share of rows on which two principles choose the same reply; needs an ensemble.

    Rows on which either chooses neither do not count.
    """
    sides: dict[str, dict[int, bool]] = {}
    for n, row in enumerate(rows):
        if len(row.opinions) < 2:
            continue
        for name, p in _sides(row).items():
            if abs(p - 0.5) >= TIE:
                sides.setdefault(name, {})[n] = p > 0.5
    ids = sorted(sides)
    matrix = [
        [_share([sides[a][n] == sides[b][n] for n in sides[a] if n in sides[b]]) for b in ids]
        for a in ids
    ]
    return Agreement(ids, matrix)


def _against_truth(judge: Judge, known: Sequence[Comparison]) -> KnownAnswers:
    """Judge known comparisons, every other one with the better reply second."""
    shown = [c if n % 2 else c.swap() for n, c in enumerate(known)]
    verdicts: list[Verdict] = judge.judge(shown) if shown else []
    pairs = [
        (verdict.probability, comparison.probability)
        for verdict, comparison in zip(verdicts, shown, strict=True)
        if verdict.probability is not None
    ]
    unread = len(shown) - len(pairs)
    if not pairs:
        return KnownAnswers(unread)
    predicted, truth = [p for p, _ in pairs], [t for _, t in pairs]
    folded = fold(predicted, truth)
    right = [0.5 if abs(p - 0.5) < TIE else float((p > 0.5) == (t > 0.5)) for p, t in pairs]
    return KnownAnswers(
        known_unreadable=unread,
        known=len(pairs),
        accuracy=statistics.fmean(right),
        ece=expected_calibration_error(*folded),
        reliability=bins_of(folded.probabilities, folded.labels),
    )


def _sides(row: LabelledPair) -> dict[str, float]:
    """Return the mean probability of A by principle, both orders counting alike.

    A principle of which one order is missing, though the row's others have both, is left out: it
    had no part in the label.
    """
    both = any(opinion.backward for opinion in row.opinions)
    sides = {}
    for opinion in row.opinions:
        if row.probability is None or not opinion.forward or (both and not opinion.backward):
            continue
        parts = [statistics.fmean(opinion.forward)]
        parts += [1 - statistics.fmean(opinion.backward)] if both else []
        sides[opinion.principle] = statistics.fmean(parts)
    return sides


def _entropy(p: float) -> float:
    return -sum(q * math.log(q) for q in (p, 1 - p) if q > 0)


def _share(flags: Sequence[bool]) -> float | None:
    return sum(flags) / len(flags) if flags else None
