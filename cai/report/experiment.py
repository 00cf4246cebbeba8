"""Sections on an experiment: the answer first, then effects, seeds and over-optimisation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from cai.report.answers import Contrast, answer, effects, spread_of_seeds
from cai.report.cells import Cell, cells, interval, rounded
from cai.report.collect import Result
from cai.report.figures import Labels, Series, plot
from cai.report.joined import Joined
from cai.report.names import OUTCOMES, count, n_of
from cai.report.parts import Block, Bullets, Figure, Heading, Note, Section, Table
from cai.report.systems import System
from cai.results.common import SL_CAI

HOW = (
    "Main effects are means over the settings of all other factors, paired by prompt; an "
    "interaction is how much an effect differs between two settings of another factor. In "
    "brackets: 95 % intervals that cover prompts and, where arms were repeated, seeds."
)
OVER = (
    "Change of each score against SL-CAI on red-team prompts. A policy that its own PM likes "
    "better and the judge does not is over-optimised. PMs differ between arms; the judge is one."
)


def experiment_sections(result: Result) -> Iterator[Section]:
    """Yield the answer, and what it is taken from."""
    asked = [Note(result.question.text)] if result.question.text else []
    yield Section("answer", "The answer", [*asked, Bullets(answer(result))])
    blocks = list(_effects(result))
    if blocks:
        yield Section("effects", "Effects", [*blocks, Note(HOW)])
    assert result.joined is not None
    if result.joined.repeated:
        yield Section("seeds", "Seeds", list(_seeds(result, result.joined)))
    points = _optimisation(result)
    if points is not None:
        yield Section("over", "Over-optimisation", [points, Note(OVER)])


def _effects(result: Result) -> Iterator[Block]:
    for metric, (noun, unit, decimals) in OUTCOMES.items():
        found = effects(result, metric)
        if found:
            yield Heading(f"{noun[0].upper()}{noun[1:]}{',' + unit if unit else ''}")
            n = count(found[0].effect.n, "prompt")
            yield Table(["Effect", "change", "verdict"], _rows(found, decimals), n)


def _rows(found: Sequence[Contrast], decimals: int) -> list[list[Cell]]:
    rows = []
    for contrast in found:
        effect = contrast.effect
        figure = Cell(f"{effect.value:+.{decimals}f}", interval(effect.low, effect.high, decimals))
        what = contrast.what if contrast.main else f"Interaction: {contrast.what}"
        rows.append([Cell(what), figure, Cell(effect.trend().value)])
    return rows


def _seeds(result: Result, joined: Joined) -> Iterator[Block]:
    """Show how many models each system is, and how much a seed moves a metric."""
    rows = []
    for metric, (noun, _, decimals) in OUTCOMES.items():
        spread = spread_of_seeds(joined, metric)
        if spread is not None:
            rows.append([Cell(noun), Cell(rounded(spread, decimals))])
    seeds = n_of([len(system.models) for system in result.systems], "seed")
    heads = ["Measure", "spread between seeds"]
    yield Table(heads, rows, f"{seeds} of each system")
    yield Note(
        "Standard deviation between trainings that differ in their seed alone, pooled over "
        "systems, with the part that comes from sampling replies taken off."
    )
    yield Table(["System", "seeds"], [cells(s.title, len(s.models)) for s in result.systems], seeds)


def _optimisation(result: Result) -> Figure | None:
    """Draw the change of the training PM's, the twin's and the judge's score against sqrt(KL)."""
    start = next((system for system in result.systems if system.name == SL_CAI), None)
    policies = [s for s in result.systems if s.id in result.policies]
    names = {"pm": "training PM", "twin": "twin", "judge": "judge"}
    series = []
    for key, name in names.items():
        points = [_moved(policy, start, f"{key}_score_red_team") for policy in policies]
        known = sorted(point for point in points if point is not None)
        if len(known) > 1:
            xs, ys = zip(*known, strict=True)
            series.append(Series(name, list(xs), list(ys), line=False))
    if not series:
        return None
    drawing = plot(series, Labels("over", "square root of KL, nats", "change of the score"))
    n = count(len(policies), "policy", "policies")
    caption = "Scores of the policies against their distance from SL-CAI."
    return Figure(drawing, caption, n, [one.name for one in series])


def _moved(policy: System, start: System | None, metric: str) -> tuple[float, float] | None:
    kl, score = policy.metrics.get("kl"), policy.metrics.get(metric)
    base = start.metrics.get(metric) if start else None
    if kl is None or score is None or base is None:
        return None
    if kl.value is None or score.value is None or base.value is None:
        return None
    return math.sqrt(max(0.0, kl.value)), score.value - base.value
