"""Sections on the steps of the method: revisions, labels, preference models, RL."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from cai.report.cells import Cell, cells
from cai.report.collect import Result
from cai.report.figures import Labels, Series, plot
from cai.report.names import CURVES, SOURCES, count
from cai.report.parts import Block, Facts, Figure, Grid, Note, Section, Table
from cai.results.common import Numbers, ReliabilityBin
from cai.results.labels import LabelReport, PMMetrics
from cai.results.systems import RevisionSummary

SCORERS = {"judge": "judge's harmlessness", "pm": "training PM's"}
"""Whose score of revisions it is."""
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


def step_sections(result: Result) -> Iterator[Section]:
    """Yield the sections of the steps that the first run has."""
    steps = result.steps
    if steps.revisions is not None:
        yield Section("revisions", "Revisions", [_revisions(steps.revisions)])
    if steps.labels is not None:
        yield Section("labels", "AI labels", list(_labels(steps.labels)))
    if steps.pm is not None:
        yield Section("pm", "Preference model", list(_preference_model(steps.pm)))
    if steps.history:
        question = Note("Does the score still mean what it should?")
        yield Section("rl", "Reinforcement learning", [question, _rl(result)])


def reliability(bins: Sequence[ReliabilityBin], key: str, caption: str, what: str) -> Figure:
    """Draw predicted probabilities against how often they came true."""
    series = Series("observed", [b.confidence for b in bins], [b.frequency for b in bins])
    labels = Labels(key, "predicted probability", "observed frequency")
    n = count(sum(b.n for b in bins), what)
    return Figure(plot([series], labels, diagonal=True), caption, n)


def _revisions(data: RevisionSummary) -> Block:
    points = data.by_round
    whose = SCORERS[data.scored_by]
    series = Series(
        f"{whose} score",
        [point.round for point in points],
        [point.harmless.value for point in points],
        [point.harmless.low for point in points],
        [point.harmless.high for point in points],
    )
    drawing = plot([series], Labels("revisions", "number of revisions", f"{whose} score"))
    n = count(max((row.of for row in data.yields), default=0), "prompt")
    rows = [cells(row.round, row.fault.replace("_", " "), row.rows, row.of) for row in data.yields]
    caption = "Score of the reply after each revision, with 95 % intervals."
    heads = ["Round", "verdict", "replies", "of"]
    return Grid([Figure(drawing, caption, n), Table(heads, rows, "column “of”")])


def _labels(data: LabelReport) -> Iterator[Block]:
    facts: list[tuple[str, object]] = [
        ("labels", data.labels),
        ("accuracy on known comparisons", data.accuracy),
        ("known comparisons", data.known),
        ("calibration error", data.ece),
        ("accuracy on judgements of other kinds", data.other.accuracy),
        ("judgements of other kinds", data.other.known),
        ("probability of the first option (0.5 is no bias)", data.position_bias),
        ("entropy, nats", data.entropy),
        ("undecided share", data.undecided),
        ("unreadable answers", data.unreadable),
        ("pairs without a label", data.dropped),
        ("questions asked", data.cost.questions),
        ("tokens read and written", data.cost.tokens),
    ]
    names = [name for name, _ in facts]
    values = cells(*(value for _, value in facts))
    parts: list[Block] = [Facts(list(zip(names, values, strict=True)))]
    if data.reliability:
        caption = "Are the labels calibrated?"
        parts.append(reliability(data.reliability, "labels", caption, "known comparison"))
    yield Grid(parts)
    if data.principles:
        yield _principles(data)


def _principles(data: LabelReport) -> Table:
    """Say how often each principle was asked, and how it agrees with the others."""
    heads = ["Principle", "asked", "against the label"]
    others = _agreement(data)
    if others:
        heads += ["agrees with the others", "least with"]
    rows = [
        [*cells(use.id, use.n, use.flips), *(others.get(use.id, cells("", "")) if others else [])]
        for use in data.principles
    ]
    return Table(heads, rows, f"column “asked”, of {count(data.labels, 'label')}")


def _agreement(data: LabelReport) -> dict[str, list[Cell]]:
    """Return each principle's mean agreement with the others, and the one it agrees least with."""
    found = {}
    for name, row in zip(data.agreement.ids, data.agreement.matrix, strict=True):
        known = [
            (share, other)
            for other, share in zip(data.agreement.ids, row, strict=True)
            if share is not None and other != name
        ]
        if known:
            least = min(known)
            mean = statistics.fmean(share for share, _ in known)
            found[name] = cells(f"{mean:.2f}", f"{least[1]} ({least[0]:.2f})")
    return found


def _preference_model(data: PMMetrics) -> Iterator[Block]:
    models = [("PM", data)] + ([("twin", data.twin)] if data.twin else [])
    rows = [
        cells(model, SOURCES.get(s.name, s.name), s.n, s.loss, s.accuracy, s.longer_wins, s.ece)
        for model, metrics in models
        for s in metrics.sources
    ]
    heads = ["Model", "held-out", "pairs", "loss", "accuracy", "longer wins", "ECE"]
    yield Grid(
        [
            Table(heads, rows, "column “pairs”"),
            reliability(data.reliability, "pm", "Predicted against observed frequency.", "pair"),
        ]
    )


def _rl(result: Result) -> Block:
    history, figures = result.steps.history, []
    watched = count(len({look.prompt_id for look in result.steps.looks}), "watched prompt")
    for keys, unit, caption in RL_CURVES:
        series = [
            Series(CURVES.get(key, key), [r["step"] for r in found], [r[key] for r in found])
            for key in keys
            if (found := [row for row in history if key in row])
        ]
        if series:
            drawing = plot(series, Labels(f"rl-{keys[0]}", "iteration", unit))
            on_watch = caption.endswith("on held-out prompts.") or keys[0] == "watch_score"
            n = watched if on_watch else _rollouts(result, history)
            names = [one.name for one in series] if len(series) > 1 else []
            figures.append(Figure(drawing, caption, n, names))
    moved = [row for row in history if "sqrt_kl" in row]
    if moved:
        by_kl = Series(
            "score", [r["sqrt_kl"] for r in moved], [r["score"] for r in moved], line=False
        )
        drawing = plot([by_kl], Labels("rl-kl", "square root of KL, nats", "score"))
        caption = "Score against distance from the start."
        figures.insert(1, Figure(drawing, caption, _rollouts(result, history)))
    return Grid(figures)


def _rollouts(result: Result, history: Sequence[Numbers]) -> str:
    """Say how many steps there were, and of PPO how many replies went into each."""
    if not any("score" in row for row in history):
        return count(len(history), "step")
    rollouts = result.runs[0].settings.get("rl.rollout.prompts")
    each = "" if rollouts is None else f" of {rollouts} replies"
    return f"{count(len(history), 'iteration')}{each}"
