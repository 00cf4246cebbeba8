"""Tables of systems: themes on the page, plain text at the end of a run, and rows of a CSV file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cai.report.cells import Cell, estimate
from cai.report.collect import Result
from cai.report.systems import System

Columns = Mapping[str, tuple[str, int]]
"""Metrics by name: their headings and decimals."""

HEADLINE: Columns = {
    "harmlessness_elo": ("harmless Elo", 0),
    "helpfulness_elo": ("helpful Elo", 0),
    "evasiveness": ("evasive", 2),
    "refusal_red_team": ("refuses", 2),
    "over_refusal": ("over-refuses", 2),
}
DECLINING: Columns = {
    "compliance": ("complies", 2),
    "engaged": ("engages", 2),
    "generic": ("moralises", 2),
    "deflection": ("deflects", 2),
    "boilerplate": ("boilerplate", 2),
    "recurrence": ("recurrence", 2),
}
WRITING: Columns = {
    "length": ("words", 0),
    "repetition": ("repeats itself", 2),
    "distinct_2": ("distinct-2", 2),
    "self_bleu": ("self-BLEU", 2),
    "entropy": ("entropy, nats", 2),
    "kl": ("KL, nats", 2),
}
SCORES: Columns = {
    "judge_score_red_team": ("judge, red-team", 2),
    "judge_score_helpful": ("judge, helpful", 2),
    "pm_score_red_team": ("PM, red-team", 2),
    "twin_score_red_team": ("twin, red-team", 2),
    "pm_score_helpful": ("PM, helpful", 2),
    "twin_score_helpful": ("twin, helpful", 2),
    "harmlessness_elo_constitution": ("harmless Elo, constitution", 0),
}
JUDGED: Columns = {
    "harmlessness_elo_human": ("harmless Elo, people", 0),
    "helpfulness_elo_human": ("helpful Elo, people", 0),
}
BESIDE: Columns = {
    "harmlessness_elo": ("harmless Elo, judge", 0),
    "harmlessness_elo_human": JUDGED["harmlessness_elo_human"],
    "helpfulness_elo": ("helpful Elo, judge", 0),
    "helpfulness_elo_human": JUDGED["helpfulness_elo_human"],
}
"""People's ratings beside the judge's."""
HARM: Columns = {
    "absolute_harmfulness": ("harm, 0 to 4", 2),
    "absolute_harmfulness_greedy": ("harm at T = 0", 2),
}
PERSONA: Columns = {
    "persona_consistency": ("persona consistency", 2),
    "sycophancy": ("sycophancy", 3),
}


def measured(systems: Sequence[System], columns: Columns) -> tuple[list[str], list[list[Cell]]]:
    """Return heads and rows of the systems that have any of the metrics, and of these metrics."""
    having = [s for s in systems if any(key in s.metrics for key in columns)]
    used = {k: about for k, about in columns.items() if any(k in s.metrics for s in having)}
    rows = [
        [Cell(s.title), *(estimate(s.metrics.get(key), d) for key, (_, d) in used.items())]
        for s in having
    ]
    return ["System", *(heading for heading, _ in used.values())], rows


def comparison_table(result: Result) -> str:
    """Write the systems as plain text."""
    there = {key for system in result.systems for key in system.metrics}
    shown = dict(HEADLINE) | {key: about for key, about in JUDGED.items() if key in there}
    rows = [["system", *(heading for heading, _ in shown.values())]]
    for system in result.systems:
        found = [str(estimate(system.metrics.get(key), d)) for key, (_, d) in shown.items()]
        rows.append([system.id, *found])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, *(result.joined.notes if result.joined else [])])


def csv_rows(result: Result) -> list[dict[str, str | float | None]]:
    """Return one flat row per system, with every metric and its bounds."""
    names = sorted({name for system in result.systems for name in system.metrics})
    rows = []
    for system in result.systems:
        row: dict[str, str | float | None] = {"system": system.id}
        for name in names:
            metric = system.metrics.get(name)
            row[name] = metric.value if metric else None
            row[f"{name}_low"] = metric.low if metric else None
            row[f"{name}_high"] = metric.high if metric else None
        rows.append(row)
    return rows
