"""What the judge says of the systems' replies: scores where it scores, and their matches."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

from cai.data.records import Comparison, Prompt
from cai.evaluation.measures import AXES, match_of
from cai.evaluation.systems import Context, System, rows_of
from cai.judging.judge import Judge, Judged, ScoringJudge
from cai.results.systems import Match, Reply


def judge_scores(judge: Judge, rows: Sequence[Reply]) -> list[Reply]:
    """Add the scores of a judge that gives any."""
    if not isinstance(judge, ScoringJudge):
        return list(rows)
    found = dict(enumerate(rows))
    for kind, axis in AXES.items():
        chosen = {n: row for n, row in found.items() if row.set == kind}
        scores = judge.score(axis, [Judged(row.messages, row.response) for row in chosen.values()])
        for (n, row), score in zip(chosen.items(), scores, strict=True):
            found[n] = replace(row, judge_score=score)
    return list(found.values())


def judge_matches(context: Context, judge: Judge, by: str, rows: Sequence[Reply]) -> list[Match]:
    """Let every two systems meet on every prompt before the judge.

    Args:
        context: Gives the players.
        judge: Compares; a match that it can't read is left out.
        by: The judge's artifact.
        rows: Replies, with the scores of a judge that gives any.
    """
    matches = []
    for kind, axis in AXES.items():
        pairs = pairs_of(context.systems, rows, kind)
        if isinstance(judge, ScoringJudge):
            found = [outcome_of(a, b) for a, b in pairs]
        else:
            found = judge.choose(axis, [comparison(a, b) for a, b in pairs])
        matches += [
            match_of("judge", by, axis, a, b, outcome)
            for (a, b), outcome in zip(pairs, found, strict=True)
            if outcome is not None
        ]
    return matches


def comparison(a: Reply, b: Reply) -> Comparison:
    """Put two replies to one prompt side by side."""
    prompt = Prompt(a.prompt_id, a.kind, a.messages)
    return Comparison(prompt, a.response, b.response, 0.5, a.set)


def outcome_of(a: Reply, b: Reply) -> float | None:
    """sigma(score_a - score_b), of the scores that the judge gave; None where it gave none."""
    if a.judge_score is None or b.judge_score is None:
        return None
    return 1 / (1 + math.exp(b.judge_score - a.judge_score))


def pairs_of(
    systems: Sequence[System], rows: Sequence[Reply], kind: str
) -> list[tuple[Reply, Reply]]:
    """Let every two systems meet on every prompt of a set."""
    by_system = [rows_of(rows, kind=kind, system=system.name) for system in systems]
    return [
        pair
        for first, second in itertools.combinations(by_system, 2)
        for pair in zip(first, second, strict=True)
    ]
