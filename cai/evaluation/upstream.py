"""What the report shows of earlier stages, gathered so that an evaluation stands alone."""

from __future__ import annotations

import shutil
from dataclasses import replace

from cai.contracts.assistants import Revisions
from cai.contracts.policies import EvaluateInputs, Evaluation
from cai.evaluation.measures import metric
from cai.evaluation.systems import Context
from cai.lm.packing import Tree
from cai.results.systems import RevisionSummary, RoundScore
from cai.seeds import seed_of
from cai.training.rollouts import RewardModel

SHOWN = 8
"""Revisions that are shown whole."""


def gather(context: Context, inputs: EvaluateInputs, pm: RewardModel, out: Evaluation) -> None:
    """Copy reports and histories of earlier stages, and score the revisions."""
    upstream = out.upstream
    upstream.path.mkdir(exist_ok=True)
    copies = [
        (inputs.rl.history.path, upstream.history.path),
        (inputs.rl.transcripts.path, upstream.transcripts.path),
        (out.regressor_metrics.path, upstream.harmfulness.path),
    ]
    if inputs.feedback is not None:
        copies.append((inputs.feedback.report.path, upstream.labels.path))
    for source, target in copies:
        if source.exists():
            shutil.copyfile(source, target)
    twin = inputs.pm.named("twin").metrics
    known = inputs.pm.named("model").metrics.read()
    upstream.pm.write(replace(known, twin=twin.read() if twin.exists() else None))
    if inputs.revise is not None:
        upstream.revisions.write(_revisions(context, pm, inputs.revise))


def _revisions(context: Context, pm: RewardModel, revisions: Revisions) -> RevisionSummary:
    """Score replies and revisions round by round, and draw some to show."""
    rows = revisions.rows.read()
    chat = context.model.chat
    by_round = []
    for number in range(1 + max((len(row.rounds) for row in rows), default=0)):
        trees = [
            Tree(chat.prompt(row.messages), [chat.response(row.after(number))]) for row in rows
        ]
        scores = pm.score(trees, context.micro_tokens)
        error = 1.96 * float(scores.std()) / len(rows) ** 0.5 if len(rows) > 1 else 0.0
        mean = float(scores.mean())
        bounds = metric(mean, mean - error, mean + error)
        by_round.append(RoundScore(number, mean, bounds.low, bounds.high))
    shown = sorted(rows, key=lambda row: seed_of("shown", row.prompt_id))[:SHOWN]
    return RevisionSummary(revisions.yields.read(), by_round, shown)
