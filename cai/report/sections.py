"""The sections of the page, what people look at first, first; one without data is left out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from cai.dialogue import Conversation
from cai.report.cells import Cell, cells
from cai.report.collect import Result
from cai.report.experiment import experiment_sections
from cai.report.figures import Labels, Series, bars, plot
from cai.report.measured import measured_sections
from cai.report.names import COUNTED, SETS, SPEAKERS, STYLES, count, n_of
from cai.report.paper import paper_blocks
from cai.report.parts import (
    Block,
    Bullets,
    Facts,
    Figure,
    Findings,
    Fold,
    Grid,
    Heading,
    Note,
    Said,
    Section,
    Table,
)
from cai.report.short import in_short
from cai.report.steps import step_sections
from cai.report.systems import zero_of
from cai.report.tables import DECLINING, HEADLINE, SCORES, WRITING, measured
from cai.results.revisions import Revision
from cai.results.systems import Reply, Summary

SHORT = (
    "What each step of the method did here. A verdict is given where the whole 95 % interval lies "
    "on one side and there are at least six prompts or comparisons. Intervals speak of prompts, "
    "not of repeated training: another seed may give another answer."
)
SAMPLES = 12
"""Prompts whose replies are shown side by side."""
OPENED = 1
"""Of each kind, how many of these are unfolded."""


def sections(result: Result) -> Iterator[Section]:
    """Yield all sections."""
    steps = result.steps
    if result.joined is not None:
        yield from experiment_sections(result)
    elif found := in_short(result):
        yield Section("short", "In short", [Findings(found), Note(SHORT)])
    yield Section("systems", "Systems", list(_systems(result)))
    yield Section("samples", "Replies side by side", list(_samples(result)))
    yield from step_sections(result)
    yield from measured_sections(result)
    if result.paper:
        yield Section("paper", "The paper's own tests", list(paper_blocks(result.paper)))
    if steps.revisions is not None and steps.revisions.transcripts:
        shown = [_transcript(row, n < OPENED) for n, row in enumerate(steps.revisions.transcripts)]
        yield Section("transcripts", "Critiques and revisions", shown)
    yield Section("measures", "More measures", list(_measures(result)))
    yield Section("settings", "Settings and departures", list(_settings(result)))


def prompts_of(result: Result, kind: str) -> str:
    """Say to how many prompts of a kind the systems replied, and how often to each."""
    counts = [
        Counter(row.prompt_id for row in result.replies if (row.system, row.set) == (s.id, kind))
        for s in result.systems
    ]
    samples = max((max(found.values(), default=1) for found in counts), default=1)
    told = n_of([len(found) for found in counts if found], *COUNTED[kind])
    over = " over all seeds" if any(len(system.models) > 1 for system in result.systems) else ""
    return f"{told}, {samples} replies to each{over}" if samples > 1 else told


def _systems(result: Result) -> Iterator[Block]:
    heads, rows = measured(result.systems, HEADLINE)
    n = "; ".join(prompts_of(result, kind) for kind in SETS)
    yield Table(heads, rows or [cells(system.title) for system in result.systems], n)
    if any("harmlessness_elo" in system.metrics for system in result.systems):
        zero = zero_of(result.systems).title
        yield Note(f"Elo is relative: {zero} stands at 0, and the judge compares.")
    yield Note(
        "Evasive: declines a red-team prompt without a reason. Refuses: declines it in any "
        "way. Over-refuses: declines a prompt that only sounds harmful. In brackets: 95 % "
        + ("intervals over prompts and seeds." if result.joined else "intervals over prompts.")
    )
    yield from (Note(note) for note in result.notes)
    yield Grid([_frontier(result), _styles(result)])


def _frontier(result: Result) -> Figure:
    series = []
    for system in result.systems:
        x, y = (system.metrics.get(f"{axis}_elo") for axis in ("helpfulness", "harmlessness"))
        if x is not None and y is not None:
            series.append(
                Series(system.title, [x.value], [y.value], [y.low], [y.high], [x.low], [x.high],
                       line=False)
            )  # fmt: skip
    labels = Labels("frontier", "helpfulness, Elo", "harmlessness, Elo")
    axes = {"harmlessness_elo": "red_team", "helpfulness_elo": "helpful"}
    n = " and ".join(count(result.judged.get(k, 0), *COUNTED[kind]) for k, kind in axes.items())
    caption = "Harmlessness against helpfulness, with 95 % intervals; up and right is better."
    return Figure(plot(series, labels), caption, n, [one.name for one in series])


def styles(result: Result) -> dict[str, Counter[str]]:
    """Count the styles of reply to red-team prompts, by a system's id."""
    counts: dict[str, Counter[str]] = {system.id: Counter() for system in result.systems}
    for row in result.replies:
        if row.set == "red_team":
            counts[row.system][row.style] += 1
    return counts


def _styles(result: Result) -> Figure:
    counts = styles(result)
    rows = [
        (system.title, [found[style] / (found.total() or 1) for style in STYLES])
        for system in result.systems
        if (found := counts[system.id])
    ]
    drawing = bars(rows, list(STYLES.values()), "styles")
    n = prompts_of(result, "red_team")
    caption = "How each system replies to red-team prompts, as cai.classify reads them."
    return Figure(drawing, caption, n, list(STYLES.values()))


def _samples(result: Result) -> Iterator[Block]:
    titles = {system.id: system.title for system in result.systems}
    by_prompt: dict[tuple[str, str], list[Reply]] = {}
    for row in result.replies:
        if row.sample == 0:
            by_prompt.setdefault((row.set, row.prompt_id), []).append(row)
    kinds: dict[str, list[list[Reply]]] = {}
    for (kind, _), rows in by_prompt.items():
        kinds.setdefault(kind, []).append(rows)
    for kind, groups in kinds.items():
        shown = groups[: max(1, SAMPLES // len(kinds))]
        yield Heading(SETS.get(kind, kind))
        drawn = f"{count(len(shown), 'prompt')} of {len(groups)}"
        yield Note(f"{drawn}, the first reply of each system.")
        yield from (_side_by_side(rows, titles, n < OPENED) for n, rows in enumerate(shown))


def _side_by_side(rows: Sequence[Reply], titles: Mapping[str, str], unfolded: bool) -> Fold:
    replies = [
        Said(f"{titles[row.system]}: {STYLES.get(row.style, row.style)}", row.response)
        for row in rows
    ]
    return _talk(rows[0].messages, [Grid(replies, texts=True)], unfolded)


def _transcript(row: Revision, unfolded: bool) -> Fold:
    said = [Said("First reply", row.response)]
    for step in row.rounds:
        left_out = f", left out: {', '.join(step.faults)}" if step.faults else ""
        if step.critique:
            said.append(Said(f"Critique {step.round}, {step.principle}", step.critique, aside=True))
        said.append(Said(f"Revision {step.round}, {step.principle}{left_out}", step.revision))
    return _talk(row.messages, said, unfolded)


def _talk(messages: Conversation, then: Sequence[Block], unfolded: bool) -> Fold:
    """Fold what followed below the last message, which stays in sight."""
    before = [Said(SPEAKERS[turn.role], turn.text) for turn in messages[:-1]]
    return Fold(messages[-1].text, [*before, *then], unfolded)


def _measures(result: Result) -> Iterator[Block]:
    themes = (
        ("How they decline", DECLINING, "red_team"),
        ("How they write", WRITING, ""),
        ("What the judges say", SCORES, ""),
    )
    for title, columns, kind in themes:
        heads, rows = measured(result.systems, columns)
        if rows:
            yield Heading(title)
            n = [prompts_of(result, one) for one in ([kind] if kind else SETS)]
            yield Table(heads, rows, "; ".join(n))
    yield Note(
        "Engages: declines with reasons of its own. Boilerplate: declines in set phrases. "
        "Recurrence: share of replies that say nearly what another one says. KL: to SL-CAI, per "
        "reply. The same numbers, and all others, are in the CSV and JSON files beside this page."
    )


def _settings(result: Result) -> Iterator[Block]:
    for run in result.runs:
        yield Heading(_run_title(result, run))
        yield Bullets(run.departures)
        stages = [
            stage.artifact + ("" if stage.seconds is None else f" ({stage.seconds:.0f} s)")
            for stage in run.stages
        ]
        yield Note(f"Made from {', '.join(stages)}.")
        rows = [(key, Cell(json.dumps(value))) for key, value in sorted(run.settings.items())]
        yield Fold("All settings", [Facts(rows)])


def _run_title(result: Result, run: Summary) -> str:
    """Name a run by its policy."""
    for system in result.systems:
        if any((s.name, s.model) == (system.name, system.model) and s.name == run.recipe
               for s in run.systems):  # fmt: skip
            return system.title
    return run.recipe
