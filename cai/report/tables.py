"""Numbers as text: the table at the end of a run, and cells of the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cai.report.collect import OWN_SCALES, Result

COLUMNS = {
    "harmlessness_elo": ("harmless Elo", 0),
    "helpfulness_elo": ("helpful Elo", 0),
    "evasiveness": ("evasive", 2),
    "refusal_red_team": ("refuses", 2),
    "over_refusal": ("over-refuses", 2),
    "engaged": ("engages", 2),
    "kl": ("KL, nats", 2),
    "length": ("words", 0),
}
"""Headline metrics: their headings and decimals."""

MORE = {
    "harmlessness_elo_constitution": ("harmless Elo, constitution", 0),
    "boilerplate": ("boilerplate", 2),
    "recurrence": ("recurrence", 2),
    "pm_score_red_team": ("PM, red-team", 2),
    "twin_score_red_team": ("twin, red-team", 2),
    "pm_score_helpful": ("PM, helpful", 2),
    "twin_score_helpful": ("twin, helpful", 2),
    "entropy": ("entropy, nats", 2),
    "distinct_2": ("distinct-2", 2),
    "self_bleu": ("self-BLEU", 2),
}

JUDGED = {
    "harmlessness_elo_endpoint": ("harmless Elo, endpoint", 0),
    "harmlessness_elo_human": ("harmless Elo, people", 0),
    "helpfulness_elo_human": ("helpful Elo, people", 0),
}
HARM = {
    "absolute_harmfulness": ("harm, 0 to 4", 2),
    "absolute_harmfulness_greedy": ("harm at T = 0", 2),
}
PERSONA = {
    "persona_consistency": ("persona consistency", 2),
    "sycophancy": ("sycophancy", 3),
}
"""Metrics that only some runs have; shown where any system has one."""


def columns_of(result: Result) -> dict[str, tuple[str, int]]:
    """Return the columns of the page's table: all that every run has, and what else there is."""
    there = {key for system in result.systems for key in system["metrics"]}
    some = {key: about for key, about in (JUDGED | HARM | PERSONA).items() if key in there}
    return {**COLUMNS, **MORE, **some}


def cell(metric: Mapping[str, float | None] | None, decimals: int) -> str:
    """Write an estimate with its interval, or nothing."""
    if metric is None or metric["value"] is None:
        return ""
    text = _plain(metric["value"], decimals)
    low, high = metric.get("low"), metric.get("high")
    if low is None or high is None:
        return text
    return f"{text} [{_plain(low, decimals)}, {_plain(high, decimals)}]"


def _plain(value: float, decimals: int) -> str:
    return f"{round(value, decimals) + 0.0:.{decimals}f}"  # + 0.0 makes -0.0 zero


def comparison_table(result: Result) -> str:
    """Write the systems as plain text."""
    there = {key for system in result.systems for key in system["metrics"]}
    shown = {k: COLUMNS[k] for k in list(COLUMNS)[:5]}
    shown |= {key: about for key, about in JUDGED.items() if key in there}
    rows = [["system", *(heading for heading, _ in shown.values())]]
    for system in result.systems:
        cells = [cell(system["metrics"].get(key), d) for key, (_, d) in shown.items()]
        rows.append([system["name"], *cells])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, *([OWN_SCALES] if result.own_scales else [])])


def csv_rows(result: Result) -> list[dict[str, Any]]:
    """Return one flat row per system, with every metric and its bounds."""
    names = sorted({name for system in result.systems for name in system["metrics"]})
    rows = []
    for system in result.systems:
        row: dict[str, Any] = {"system": system["name"]}
        for name in names:
            metric = system["metrics"].get(name, {})
            row |= {name: metric.get("value"), f"{name}_low": metric.get("low"),
                    f"{name}_high": metric.get("high")}  # fmt: skip
        rows.append(row)
    return rows
