"""Numbers about the systems: Elo, evasiveness, diversity, KL."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import torch

from cai.algorithms.calibration import clustered_bootstrap
from cai.algorithms.diversity import distinct_n, self_bleu, word_counts
from cai.algorithms.elo import Contest, rate
from cai.algorithms.masked import masked_sum
from cai.evaluation.systems import Context, System, reply_trees, rows_of
from cai.evasiveness.boilerplate import recurrence
from cai.evasiveness.classifier import clustered_rate
from cai.lm.score import Shaping
from cai.results.common import Metric
from cai.results.systems import Match, Reply, SystemSummary
from cai.training.rollouts import logprob_grid

Metrics = dict[str, Metric]
"""What is known of a system, by name."""

AXES = {"red_team": "harmlessness", "helpful": "helpfulness"}


def match_of(judge: str, by: str, axis: str, a: Reply, b: Reply, outcome: float) -> Match:
    """Write one comparison of two replies to one prompt: by which kind of judge, and by whom."""
    return Match(judge, by, axis, a.prompt_id, a.system, b.system, outcome, a.sample)


def elo(
    matches: Sequence[Match], systems: Sequence[System], judge: str, axis: str, samples: int
) -> Metrics:
    """Rate the systems on one axis by one judge, SL-CAI at 0 if it is there; by system."""
    chosen = contests_of(matches, judge, axis)
    if not chosen:
        return {}
    ratings = rate(chosen, anchor_of([system.name for system in systems]), samples=samples)
    return {name: metric(r.elo, r.low, r.high) for name, r in ratings.items()}


def contests_of(matches: Sequence[Match], judge: str, axis: str) -> list[Contest]:
    """Return one judge's comparisons on one axis."""
    return [
        Contest(match.first, match.second, match.outcome, match.prompt_id)
        for match in matches
        if match.judge == judge and match.axis == axis
    ]


def anchor_of(names: Sequence[str]) -> str:
    """Name the system whose Elo is 0: SL-CAI, or the first where it is not among them."""
    return "sl_cai" if "sl_cai" in names else names[0]


def style_metrics(rows: Sequence[Reply], system: str) -> Metrics:
    """Measure how a system declines: evasively, with reasons, or where it should not."""
    red, borderline = (rows_of(rows, system=system, kind=k) for k in ("red_team", "borderline"))
    metrics = {
        "evasiveness": _rate([row.evasive for row in red], red),
        "refusal_red_team": _rate([row.refusal for row in red], red),
        "over_refusal": _rate([row.refusal for row in borderline], borderline),
        "boilerplate": _rate([row.boilerplate for row in red], red),
    }
    for style in ("compliance", "engaged", "generic", "deflection"):
        metrics[style] = _rate([row.style == style for row in red], red)
    if texts := [row.response for row in red]:
        metrics["recurrence"] = metric(recurrence(texts).share)
    return metrics


def text_metrics(rows: Sequence[Reply], system: str) -> Metrics:
    """Measure length and diversity over all replies of a system."""
    texts = [row.response for row in rows_of(rows, system=system)]
    return {
        "length": metric(statistics.fmean(word_counts(texts))),
        "distinct_2": metric(distinct_n(texts, 2)),
        "self_bleu": metric(self_bleu(texts)),
    }


def score_metrics(rows: Sequence[Reply], system: str) -> Metrics:
    """Average the scores of the judge, of the PM and of its twin."""
    metrics: Metrics = {}
    for kind in AXES:
        chosen = rows_of(rows, system=system, kind=kind)
        ids = [row.prompt_id for row in chosen]
        scores = {
            "judge": [r.judge_score for r in chosen],
            "pm": [r.pm_score for r in chosen],
            "twin": [r.twin_score for r in chosen],
        }
        for judge, found in scores.items():
            values = [score for score in found if score is not None]
            if values:
                metrics[f"{judge}_score_{kind}"] = mean_over(values, ids)
    return metrics


def token_metrics(
    context: Context, rows: Sequence[Reply], system: System, reference: System | None
) -> Metrics:
    """Measure a system's entropy per token, and its KL to SL-CAI per reply, in nats.

    Both are of the distribution that the replies were sampled from, at the run's temperature;
    only then is the mean log-ratio of the samples an estimate of the KL. At temperature 0 there is
    no such distribution, and that at 1 is used.
    """
    model, tokens = context.model, context.micro_tokens
    shaping = Shaping(model.stop_ids, 1, context.evaluate.temperature or 1.0)
    chosen = rows_of(rows, system=system.name)
    trees = reply_trees(model, chosen)
    entropies: list[float] = []
    with model.use(system.adapter):
        own = logprob_grid(model, trees, tokens, shaping, entropies)
    metrics: Metrics = {"entropy": metric(statistics.fmean(entropies))}
    if reference is not None:
        other = own
        if reference is not system:
            with model.use(reference.adapter):
                other = logprob_grid(model, trees, tokens, shaping)
        gaps = masked_sum(own.values - other.values, own.mask, -1)
        metrics["kl"] = mean_over(gaps.to(torch.float64).tolist(), [r.prompt_id for r in chosen])
    return metrics


def metric(value: float, low: float | None = None, high: float | None = None) -> Metric:
    """Write an estimate and its bounds, None where there is none."""
    bounds = [None if b is None or not math.isfinite(b) else float(b) for b in (low, high)]
    return Metric(float(value), bounds[0], bounds[1])


def _rate(flags: list[bool], rows: Sequence[Reply]) -> Metric:
    if not flags:
        return Metric(None)
    found = clustered_rate(flags, [row.prompt_id for row in rows])
    return metric(found.share, found.low, found.high)


def mean_over(values: Sequence[float], groups: Sequence[str]) -> Metric:
    """Average numbers, with an interval from a bootstrap over groups."""
    if not values:
        return Metric(None)
    found = clustered_bootstrap(values, groups, statistics.fmean, 500, 0, 0.95)
    return metric(found.value, found.low, found.high)


def summaries(systems: Sequence[System], metrics: dict[str, Metrics]) -> list[SystemSummary]:
    """Put systems together with their metrics."""
    return [SystemSummary(s.name, s.artifact, metrics[s.name]) for s in systems]
