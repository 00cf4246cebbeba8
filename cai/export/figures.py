"""What an evaluation found out about a system: figures with intervals, and weaknesses."""

from __future__ import annotations

from dataclasses import dataclass

from cai.algorithms.calibration import share_interval
from cai.contracts.policies import Evaluation
from cai.export.lineage import Lineage
from cai.results.common import Metric
from cai.results.judge import JudgeReport
from cai.results.labels import PMMetrics
from cai.results.systems import Summary

FIGURES = {
    "harmlessness_elo": ("Elo of harmlessness, by the judge", 0),
    "helpfulness_elo": ("Elo of helpfulness, by the judge", 0),
    "harmlessness_elo_human": ("Elo of harmlessness, by people", 0),
    "helpfulness_elo_human": ("Elo of helpfulness, by people", 0),
    "refusal_red_team": ("red-team prompts declined", 2),
    "engaged": ("red-team prompts declined with reasons", 2),
    "evasiveness": ("red-team prompts turned away without a reason", 2),
    "compliance": ("red-team prompts complied with", 2),
    "over_refusal": ("prompts that only sound harmful declined", 2),
    "absolute_harmfulness": ("harm of its replies, 0 to 4", 2),
    "kl": ("KL to the start of RL, nats a reply", 2),
    "length": ("words a reply", 0),
}
"""Metrics that a card tells: in words, and decimals."""
ZERO = "Elo 0 is SL-CAI, or the first system where it is not among them."
SHARES = {
    "compliance": "It complied with a share of {} of held-out red-team prompts.",
    "evasiveness": "It turned a share of {} of them away without a reason.",
    "over_refusal": "It declined a share of {} of harmless prompts that only sound harmful.",
}
UNKNOWN = (
    "It was not evaluated: how harmless and how helpful it is has not been measured.",
    "Nobody should rely on it for safety.",
)
UNTESTED = (
    "Whether what it says is true was not measured, and a small base is often wrong.",
    "Prompts were mostly one turn long and in the language of the data; nothing is known of long "
    "dialogues, of other languages or of attacks that adapt.",
)
OF_SCORES = (
    "A policy that is trained against it finds replies that it overrates: measure with another "
    "model than the one that is trained against.",
    "It compared replies of one family of models; what its scores of others mean was not measured.",
)


@dataclass(frozen=True)
class Found:
    """An evaluation.

    Attributes:
        summary: Its figures.
        judge: How far its judge can be trusted; None if that was not taken down.
    """

    summary: Summary
    judge: JudgeReport | None

    def metrics(self, name: str) -> dict[str, Metric]:
        """Return what is known of a system; nothing if it was not among those evaluated."""
        return next((s.metrics for s in self.summary.systems if s.name == name), {})


def found_in(lineage: Lineage) -> Found | None:
    """Read the evaluation of a run; None if it has none."""
    summary = lineage.summary()
    if summary is None:
        return None
    result = lineage.results["evaluate"]
    report = Evaluation(result.stage, result.fingerprint, result.path).upstream.judge
    return Found(summary, report.read() if report.exists() else None)


def figures(name: str, found: Found | None) -> str:
    """Write a system's figures as a table."""
    metrics = found.metrics(name) if found else {}
    rows = [
        f"| {words} | {_rounded(metrics[key].value, n)} | {_interval(metrics[key], n)} |"
        for key, (words, n) in FIGURES.items()
        if key in metrics and metrics[key].value is not None
    ]
    if not rows:
        return "It was not evaluated."
    head = ["| on held-out prompts | value | 95 % interval |", "|---|---|---|"]
    return "\n".join([*head, *rows, "", f"{ZERO} Intervals are over prompts, not over seeds."])


def weaknesses(name: str, found: Found | None) -> str:
    """List what is weak, first what was measured."""
    metrics = found.metrics(name) if found else {}
    lines = [
        words.format(f"{_rounded(metrics[key].value, 2)} {_interval(metrics[key], 2)}".strip())
        for key, words in SHARES.items()
        if key in metrics and metrics[key].value
    ]
    if found is None or not metrics:
        lines += UNKNOWN
    else:
        lines += _of_the_judge(found.judge)
    lines += UNTESTED
    if found is not None:
        lines += [*found.summary.notes, *found.summary.departures]
    return "\n".join(f"- {line}" for line in lines)


def preference_weaknesses(metrics: PMMetrics) -> str:
    """List how often a preference model is wrong, and what it goes by."""
    lines = []
    for kind in metrics.sources:
        share = share_interval(kind.accuracy, kind.n)
        low, high = _rounded(share.low, 2), _rounded(share.high, 2)
        lines.append(
            f"It ranks {_rounded(share.value, 2)} [{low}, {high}] of {kind.n} held-out comparisons "
            f"of kind {kind.name} rightly; choosing the longer reply ranks {kind.longer_wins:.2f}."
        )
    lines += OF_SCORES
    return "\n".join(f"- {line}" for line in lines)


def _of_the_judge(report: JudgeReport | None) -> list[str]:
    """Say how far the judge's Elo can be trusted."""
    if report is None:
        return []
    return [
        f"The judge of {exam.axis} ranks {_rounded(exam.accuracy.value, 2)} "
        f"{_interval(exam.accuracy, 2)} of {exam.n} unseen comparisons rightly; choosing the "
        f"longer reply ranks {exam.longer_wins:.2f}."
        for exam in report.exams
        if exam.whose == "data" and exam.accuracy.value is not None
    ]


def _rounded(value: float | None, decimals: int) -> str:
    return "" if value is None else f"{round(value, decimals) + 0.0:.{decimals}f}"


def _interval(metric: Metric, decimals: int) -> str:
    if metric.low is None or metric.high is None:
        return ""
    return f"[{_rounded(metric.low, decimals)}, {_rounded(metric.high, decimals)}]"
