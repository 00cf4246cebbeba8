"""What the report shows of earlier stages, gathered so that an evaluation stands alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from cai.algorithms.calibration import student_interval
from cai.contracts.assistants import Revisions
from cai.contracts.policies import EvaluateInputs, Evaluation
from cai.evaluation.systems import Context
from cai.files import copy_file
from cai.judging.judge import Judge, Judged, ScoringJudge
from cai.lm.packing import Tree
from cai.results.common import Metric
from cai.results.revisions import Revision
from cai.results.systems import RevisionSummary, RoundScore
from cai.seeds import seed_of
from cai.training.rollouts import RewardModel

SHOWN = 8
"""Revisions that are shown whole."""


class Scorers(NamedTuple):
    """Who may score revisions: the judge, or the training PM where the judge gives no scores."""

    judge: Judge
    pm: RewardModel


def gather(context: Context, inputs: EvaluateInputs, scorers: Scorers, out: Evaluation) -> None:
    """Copy reports and histories of earlier stages, and score the revisions."""
    upstream = out.upstream
    upstream.path.mkdir(exist_ok=True)
    copies = [
        (inputs.rl.history.path, upstream.history.path),
        (inputs.rl.transcripts.path, upstream.transcripts.path),
        (out.regressor_metrics.path, upstream.harmfulness.path),
        (inputs.judge.report.path, upstream.judge.path),
    ]
    if inputs.feedback is not None:
        copies.append((inputs.feedback.report.path, upstream.labels.path))
    for source, target in copies:
        if source.exists():
            copy_file(source, target)
    twin = inputs.pm.named("twin").metrics
    known = inputs.pm.named("model").metrics.read()
    upstream.pm.write(replace(known, twin=twin.read() if twin.exists() else None))
    if inputs.revise is not None:
        upstream.revisions.write(_revisions(context, scorers, inputs.revise))


def _revisions(context: Context, scorers: Scorers, revisions: Revisions) -> RevisionSummary:
    """Score replies and revisions round by round, and draw some to show."""
    rows = revisions.rows.read()
    rounds = range(1 + max((len(row.rounds) for row in rows), default=0))
    scores = _scores(context, scorers, rows, rounds)
    by_round = [
        RoundScore(
            number,
            mean_with_interval(found),
            mean_with_interval([x - y for x, y in zip(found, scores[0], strict=True)]),
            len(found),
        )
        for number, found in enumerate(scores)
    ]
    shown = sorted(rows, key=lambda row: seed_of("shown", row.prompt_id))[:SHOWN]
    by = "judge" if isinstance(scorers.judge, ScoringJudge) else "pm"
    return RevisionSummary(revisions.yields.read(), by, by_round, shown)


def _scores(
    context: Context, scorers: Scorers, rows: Sequence[Revision], rounds: Sequence[int]
) -> list[list[float]]:
    """Score what every reply was after so many revisions: a list for each number of them."""
    judge, pm = scorers
    replies = [Judged(row.messages, row.after(number)) for row in rows for number in rounds]
    if isinstance(judge, ScoringJudge):
        found = judge.score("harmlessness", replies)
    else:
        chat = context.model.chat
        trees = [Tree(chat.prompt(r.conversation), [chat.response(r.reply)]) for r in replies]
        found = pm.score(trees, context.micro_tokens).tolist()
    return [found[number :: len(rounds)] for number in range(len(rounds))]


def mean_with_interval(values: Sequence[float]) -> Metric:
    """Average numbers, with Student's interval."""
    found = student_interval(values)
    return Metric(values[0] if values else None) if found is None else Metric(*found)
