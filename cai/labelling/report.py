"""How far labels can be trusted: accuracy, calibration, position bias, agreement, cost."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from cai.algorithms.calibration import (
    expected_calibration_error,
    fold,
    reliability_rows,
)
from cai.data.records import Comparison
from cai.labelling.answers import Verdict
from cai.labelling.judge import Judge
from cai.labelling.labels import TIE

UNDECIDED = 0.05
"""A label within this distance of one half decides nothing."""
KNOWN = 64
"""Comparisons with a known answer that the labeller is tested on."""


def label_report(
    judge: Judge,
    rows: Sequence[dict[str, Any]],
    known: Sequence[Comparison],
    other: Sequence[Comparison] = (),
) -> dict[str, Any]:
    """Summarise labels, and test the labeller on comparisons whose answer is known.

    Args:
        judge: The labeller.
        rows: Labelled rows.
        known: Comparisons whose ``probability`` is a human's, of the kind that was learnt from.
        other: Likewise, of other kinds: does the labeller know better from worse there, too?
    """
    probabilities = [row["probability"] for row in rows if row["probability"] is not None]
    report: dict[str, Any] = {
        "labels": len(probabilities),
        "temperature": judge.temperature,
        "unreadable": sum(row["unreadable"] for row in rows),
        "dropped": sum(row["label"] is None for row in rows),
        "entropy": statistics.fmean(map(_entropy, probabilities)) if probabilities else None,
        "undecided": _share([abs(p - 0.5) < UNDECIDED for p in probabilities]),
        "position_bias": position_bias(rows),
        "principles": principle_table(rows),
        "agreement": agreement(rows),
        "cost": {key: sum(row[key] for row in rows) for key in ("questions", "tokens")},
    }
    report["other"] = _against_truth(judge, other[:KNOWN])
    return {**report, **_against_truth(judge, known[:KNOWN])}


def position_bias(rows: Sequence[dict[str, Any]]) -> float | None:
    """Mean probability given to whichever reply is shown first; 0.5 is no bias."""
    shown = [
        p
        for row in rows
        for opinion in row["opinions"]
        if opinion["forward"] and opinion["backward"]
        for p in (
            statistics.fmean(opinion["forward"]),
            statistics.fmean(opinion["backward"]),
        )
    ]
    return statistics.fmean(shown) if shown else None


def principle_table(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Say how often each principle was asked and which labels it went against."""
    table: dict[str, dict[str, Any]] = {}
    for row in rows:
        for name, p in _sides(row).items():
            entry = table.setdefault(name, {"id": name, "n": 0, "flips": 0, "flipped": []})
            against = (p - 0.5) * (row["probability"] - 0.5) < 0
            entry["n"] += 1
            entry["flips"] += against
            entry["flipped"] += [row["prompt_id"]] if against else []
    return sorted(table.values(), key=lambda entry: entry["id"])


def agreement(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Share of rows on which two principles choose the same reply; needs an ensemble.

    Rows on which either chooses neither do not count.
    """
    sides: dict[str, dict[int, bool]] = {}
    for n, row in enumerate(rows):
        if len(row["opinions"]) < 2:
            continue
        for name, p in _sides(row).items():
            if abs(p - 0.5) >= TIE:
                sides.setdefault(name, {})[n] = p > 0.5
    ids = sorted(sides)
    matrix = [
        [_share([sides[a][n] == sides[b][n] for n in sides[a] if n in sides[b]]) for b in ids]
        for a in ids
    ]
    return {"ids": ids, "matrix": matrix}


def _against_truth(judge: Judge, known: Sequence[Comparison]) -> dict[str, Any]:
    """Judge known comparisons, every other one with the better reply second."""
    shown = [c if n % 2 else c.swap() for n, c in enumerate(known)]
    verdicts: list[Verdict] = judge.judge(shown) if shown else []
    pairs = [
        (verdict.probability, comparison.probability)
        for verdict, comparison in zip(verdicts, shown, strict=True)
        if verdict.probability is not None
    ]
    unread = {"known_unreadable": len(shown) - len(pairs)}
    if not pairs:
        return unread
    predicted, truth = [p for p, _ in pairs], [t for _, t in pairs]
    folded = fold(predicted, truth)
    return {
        **unread,
        "known": len(pairs),
        "accuracy": statistics.fmean(
            0.5 if abs(p - 0.5) < TIE else float((p > 0.5) == (t > 0.5)) for p, t in pairs
        ),
        "ece": expected_calibration_error(*folded),
        "reliability": reliability_rows(list(folded.probabilities), list(folded.labels)),
    }


def _sides(row: dict[str, Any]) -> dict[str, float]:
    """Return the mean probability of A by principle, both orders counting alike.

    A principle of which one order is missing, though the row's others have both, is left out: it
    had no part in the label.
    """
    both = any(opinion["backward"] for opinion in row["opinions"])
    sides = {}
    for opinion in row["opinions"]:
        forward, backward = opinion["forward"], opinion["backward"]
        if row["probability"] is None or not forward or (both and not backward):
            continue
        parts = [statistics.fmean(forward), *([1 - statistics.fmean(backward)] if both else [])]
        sides[opinion["principle"]] = statistics.fmean(parts)
    return sides


def _entropy(p: float) -> float:
    return -sum(q * math.log(q) for q in (p, 1 - p) if q > 0)


def _share(flags: Sequence[bool]) -> float | None:
    return sum(flags) / len(flags) if flags else None
