"""Numbers about the systems: Elo, evasiveness, diversity, KL."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from cai.algorithms.calibration import clustered_bootstrap
from cai.algorithms.diversity import distinct_n, self_bleu, word_counts
from cai.algorithms.elo import Contest, rate
from cai.constitution.guards import runs_in_circles
from cai.evaluation.systems import Context, System, reply_trees, rows_of
from cai.evasiveness.boilerplate import recurrence
from cai.evasiveness.classifier import clustered_rate
from cai.lm.score import Shaping, token_logprobs
from cai.results.common import SL_CAI, Metric
from cai.results.systems import Match, Reply, SystemSummary

Metrics = dict[str, Metric]
"""What is known of a system, by name."""

AXES = {"red_team": "harmlessness", "helpful": "helpfulness"}
"""What is judged of the replies to each set of prompts."""


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
    return SL_CAI if SL_CAI in names else names[0]


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
    own = rows_of(rows, system=system)
    texts = [row.response for row in own]
    return {
        "length": metric(statistics.fmean(word_counts(texts))),
        "repetition": _rate([runs_in_circles(text) for text in texts], own),
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


def entropy(context: Context, rows: Sequence[Reply], system: System) -> Metrics:
    """Measure a system's entropy per token, in nats, of what it sampled from at the temperature.

    The mean of -log p over sampled tokens is an unbiased estimate of it. At temperature 0 nothing
    is drawn, and of several drawn replies the kept one is not any of them: then there is none.
    """
    drawn = [(r.logprob, len(r.tokens or ())) for r in rows_of(rows, system=system.name)]
    known = [(logprob, tokens) for logprob, tokens in drawn if logprob is not None]
    if not known or context.evaluate.temperature == 0 or system.best_of > 1:
        return {}
    said = math.fsum(logprob for logprob, _ in known)
    return {"entropy": metric(-said / sum(tokens for _, tokens in known))}


def divergences(context: Context, rows: Sequence[Reply]) -> dict[str, Metrics]:
    """Measure every system's KL to SL-CAI per reply, in nats, at the temperature of the run.

    The mean log-ratio of samples is an estimate of it. What the system gave them is known since
    they were drawn, so that SL-CAI alone reads them, those to one prompt together; where a server
    drew them, its rounding is in the difference. At temperature 0 there is no such distribution,
    and that at 1 is used.
    """
    model = context.model
    reference = next((s for s in context.systems if s.name == SL_CAI), None)
    if reference is None:
        return {}
    others = [row for row in rows if row.system != SL_CAI and row.logprob is not None]
    shaping = Shaping(model.stop_ids, 1, context.evaluate.temperature or 1.0)
    trees = reply_trees(model, others)
    with model.sampling(reference.adapter) as network:
        read = token_logprobs(network, trees, context.micro_tokens, shaping=shaping)
    gaps = [
        (row.logprob or 0.0) - float(tokens.double().sum())
        for row, [tokens] in zip(others, read, strict=True)
    ]
    found = {SL_CAI: Metric(0.0, 0.0, 0.0)}
    for system in dict.fromkeys(row.system for row in others):
        own = [(g, r.prompt_id) for g, r in zip(gaps, others, strict=True) if r.system == system]
        found[system] = mean_over([gap for gap, _ in own], [prompt for _, prompt in own])
    return {name: {"kl": value} for name, value in found.items()}


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
