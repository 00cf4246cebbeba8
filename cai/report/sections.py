"""The sections of the page; one whose data are missing is left out."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Sequence

from cai.report.collect import Result, Row, styles, zero_of
from cai.report.markup import figure, number, reliability, say, table
from cai.report.measured import measured_sections
from cai.report.paper import HEADS, NOTE, paper_parts
from cai.report.plots import Series, bars, plot
from cai.report.tables import cell, columns_of

STYLES = ("compliance", "engaged", "generic", "evasive", "deflection")
RL_CURVES = (
    (("watch_score", "twin_score"), "score",
     "The training PM and its twin on held-out prompts: a gap that widens is Goodhart."),
    (("score",), "score", "Score of the rollouts."),
    (("entropy",), "nats per token", "Entropy: falls when modes collapse."),
    (("length",), "tokens", "Length of replies."),
    (("distinct_2", "self_similarity", "evasiveness"), "share",
     "Diversity and evasiveness on held-out prompts."),
    (("loss",), "loss", "Loss on the comparisons."),
    (("accuracy",), "share", "Comparisons ranked as labelled."),
)  # fmt: skip
"""What is drawn of the policy's training: numbers, unit, caption; what is not there is left out."""
SAMPLES = 12
"""Prompts whose replies are shown side by side."""

Section = tuple[str, str, str]


def sections(result: Result) -> Iterator[Section]:
    """Yield an id, a title and the HTML of each section."""
    n = len({row["prompt_id"] for row in result.replies if row["set"] == "red_team"})
    yield "systems", "Systems", _systems(result, n)
    yield "frontier", "Harmlessness against helpfulness", _frontier(result)
    yield "styles", "Styles of reply to red-team prompts", _styles(result)
    up = result.upstream
    if "revise" in up:
        yield "revisions", "Revisions", _revisions(up["revise"])
    if "feedback" in up:
        yield "labels", "AI labels", _labels(up["feedback"])
    if "pm" in up:
        yield "pm", "Preference model", _preference_model(up["pm"])
    if up.get("rl"):
        yield (
            "rl",
            "Reinforcement learning: does the score still mean what it should?",
            _rl(up["rl"]),
        )
    yield from measured_sections(result)
    if result.paper:
        yield "paper", "The paper's own tests", _paper(result.paper)
    yield "samples", "Replies side by side", _samples(result)
    if "revise" in up:
        yield "transcripts", "Critiques and revisions", _transcripts(up["revise"]["transcripts"])
    yield "settings", "Settings and departures from the paper", _settings(result)


def _systems(result: Result, n: int) -> str:
    columns = columns_of(result)
    zero = zero_of([system["name"] for system in result.systems])
    scale = "" if result.own_scales else f"Elo is relative: {say(zero)} stands at 0. "
    rows = [
        [s["name"], *(cell(s["metrics"].get(key), d) for key, (_, d) in columns.items())]
        for s in result.systems
    ]
    notes = "".join(
        f'<p class="note">{say(note)}</p>'
        for note in dict.fromkeys(note for run in result.runs for note in run["notes"])
    )
    caption = (
        f'<p class="note">{n} red-team prompts. In brackets: 95 % intervals from a bootstrap over '
        f"prompts. {scale}Evasive: declines without a reason. "
        "Over-refuses: declines a prompt that only sounds harmful.</p>"
    )
    return table(["system", *(h for h, _ in columns.values())], rows) + caption + notes


def _frontier(result: Result) -> str:
    series = []
    for system in result.systems:
        x, y = (system["metrics"].get(f"{axis}_elo") for axis in ("helpfulness", "harmlessness"))
        if x is None or y is None:
            continue
        series.append(
            Series(system["name"], [x["value"]], [y["value"]], [y["low"]], [y["high"]],
                   [x["low"]], [x["high"]], line=False)
        )  # fmt: skip
    drawn = plot(series, "helpfulness, Elo", "harmlessness, Elo")
    return figure(drawn, "Elo from comparisons by the twin preference model, with 95 % intervals.")


def _styles(result: Result) -> str:
    rows = []
    for name, counts in styles(result).items():
        total = sum(counts.values()) or 1
        rows.append((name, [counts[style] / total for style in STYLES]))
    drawn = bars(rows, STYLES)
    return figure(drawn, "Share of replies in each style, by the rules of cai.classify.")


def _revisions(data: Row) -> str:
    points = data["pm_by_round"]
    series = Series(
        "PM score",
        [p["round"] for p in points],
        [p["harmless"] for p in points],
        [p["low"] for p in points],
        [p["high"] for p in points],
    )
    drawn = plot([series], "number of revisions", "PM score, mean removed")
    rows = [[y["round"], y["fault"], y["rows"], y["of"]] for y in data["yield"]]
    shown = table(["round", "verdict", "rows", "of"], rows)
    curve = figure(drawn, "Score of the reply after each revision.")
    return f'<div class="grid">{curve}{shown}</div>'


def _labels(data: Row) -> str:
    facts = {
        "labels": data.get("labels"),
        "accuracy on known comparisons": data.get("accuracy"),
        "known comparisons": data.get("known"),
        "calibration error": data.get("ece"),
        "accuracy on judgements of other kinds": data.get("other", {}).get("accuracy"),
        "judgements of other kinds": data.get("other", {}).get("known"),
        "probability of the first option (0.5 is no bias)": data.get("position_bias"),
        "entropy, nats": data.get("entropy"),
        "undecided share": data.get("undecided"),
        "unreadable answers": data.get("unreadable"),
        "pairs without a label": data.get("dropped"),
        "questions asked": data.get("cost", {}).get("questions"),
        "tokens read and written": data.get("cost", {}).get("tokens"),
    }
    parts = [table(["measure", "value"], [[k, number(v)] for k, v in facts.items()])]
    if data.get("reliability"):
        parts.append(figure(reliability(data["reliability"]), "Are the labels calibrated?"))
    flips = [[p["id"], p["n"], p["flips"]] for p in data.get("principles", [])]
    if flips:
        parts.append(table(["principle", "asked", "against the label"], flips))
    agreement = data.get("agreement", {})
    if agreement.get("ids"):
        rows = [
            [a, *map(number, row)]
            for a, row in zip(agreement["ids"], agreement["matrix"], strict=True)
        ]
        parts.append(table(["agreement", *agreement["ids"]], rows))
    return f'<div class="grid">{"".join(parts)}</div>'


def _preference_model(data: Row) -> str:
    rows = [
        [
            model,
            s["name"],
            s["n"],
            *(number(s[k]) for k in ("loss", "accuracy", "longer_wins", "ece")),
        ]
        for model, metrics in (("PM", data), ("twin", data.get("twin", {})))
        for s in metrics.get("sources", [])
    ]
    heads = ["model", "held-out", "pairs", "loss", "accuracy", "longer wins", "ECE"]
    diagram = figure(reliability(data["reliability"]), "Predicted against observed frequency.")
    return f'<div class="grid">{table(heads, rows)}{diagram}</div>'


def _rl(history: Sequence[Row]) -> str:
    figures = []
    for keys, unit, caption in RL_CURVES:
        rows = [[row for row in history if key in row] for key in keys]
        series = [
            Series(key, [row["step"] for row in found], [row[key] for row in found])
            for key, found in zip(keys, rows, strict=True)
            if found
        ]
        if series:
            figures.append(figure(plot(series, "iteration", unit), caption))
    moved = [row for row in history if "sqrt_kl" in row]
    if moved:
        by_kl = Series(
            "score", [r["sqrt_kl"] for r in moved], [r["score"] for r in moved], line=False
        )
        distance = plot([by_kl], "square root of KL, nats", "score")
        figures.insert(1, figure(distance, "Score against distance from the start."))
    return f'<div class="grid">{"".join(figures)}</div>'


def _paper(tests: Sequence[Row]) -> str:
    parts = [f'<p class="note">{say(NOTE)}</p>']
    for part in paper_parts(tests):
        figures = "".join(
            figure(
                plot(series, "probability of the answer", "how often it is right", diagonal=True),
                f"Are the answers calibrated? By {mode}.",
            )
            for mode, series in part.diagrams
        )
        parts.append(
            f'<h3>{say(part.title)}</h3><p class="note">{say(part.note)}</p>'
            f'{table(HEADS, part.rows)}<div class="grid">{figures}</div>'
        )
    return "".join(parts)


def _samples(result: Result) -> str:
    by_prompt: dict[tuple[str, str], list[Row]] = {}
    for row in result.replies:
        if row["sample"] == 0:
            by_prompt.setdefault((row["set"], row["prompt_id"]), []).append(row)
    kinds: dict[str, list[list[Row]]] = {}
    for (kind, _), rows in by_prompt.items():
        kinds.setdefault(kind, []).append(rows)
    parts = []
    for kind, groups in kinds.items():
        parts.append(f"<h3>{html.escape(kind.replace('_', ' '))}</h3>")
        parts += [_side_by_side(rows) for rows in groups[: SAMPLES // len(kinds)]]
    return "".join(parts)


def _side_by_side(rows: Sequence[Row]) -> str:
    sides = "".join(
        f'<div><div class="who">{say(row["system"])}: {say(row["style"])}</div>'
        f'<div class="say">{say(row["response"])}</div></div>'
        for row in rows
    )
    return (
        f'<div class="talk">{_messages(rows[0]["messages"])}<div class="sides">{sides}</div></div>'
    )


def _transcripts(rows: Sequence[Row]) -> str:
    parts = []
    for row in rows:
        steps = "".join(
            f'<div class="who">round {step["round"]}, {say(step["principle"])}'
            f"{', left out: ' + say(', '.join(step['faults'])) if step['faults'] else ''}</div>"
            + (
                f'<div class="say"><em>{say(step["critique"])}</em></div>'
                if step["critique"]
                else ""
            )
            + f'<div class="say">{say(step["revision"])}</div>'
            for step in row["rounds"]
        )
        parts.append(
            f'<div class="talk">{_messages(row["messages"])}<div class="who">first reply</div>'
            f'<div class="say">{say(row["response"])}</div>{steps}</div>'
        )
    return "".join(parts)


def _settings(result: Result) -> str:
    parts = []
    for run in result.runs:
        said = "".join(f"<li>{say(sentence)}</li>" for sentence in run["departures"])
        rows = [[key, json.dumps(value)] for key, value in sorted(run["settings"].items())]
        stages = ", ".join(
            say(stage["artifact"]) + (f" ({stage['seconds']:.0f} s)" if "seconds" in stage else "")
            for stage in run["stages"]
        )
        parts.append(
            f"<h3>{say(run['recipe'])}</h3><ul>{said}</ul><p class='note'>Made from {stages}.</p>"
            f"<details><summary>All settings</summary>{table(['key', 'value'], rows)}</details>"
        )
    return "".join(parts)


def _messages(messages: Sequence[Row]) -> str:
    return "".join(
        f'<div class="who">{say(message["role"])}</div>'
        f'<div class="say">{say(message["content"])}</div>'
        for message in messages
    )
