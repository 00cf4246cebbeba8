"""What people say: their choices in the arena, their Elo, and how far they agree."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cai.algorithms.agreement import of_comparisons
from cai.algorithms.calibration import Interval, clustered_bootstrap
from cai.algorithms.elo import RATINGS, Contest, rate
from cai.contracts.found import choices_of, match_of_choice
from cai.contracts.policies import Evaluation
from cai.data.choices import choices_in
from cai.report.systems import Named
from cai.results.common import AXES, SL_CAI, Metric
from cai.results.systems import Match, Reply, Summary

RESAMPLES = 300
UNLINKED = (
    "People's choices on {} do not put all systems that they name on one scale yet ({}), so there "
    "is no Elo of theirs: choose between more pairs."
)


@dataclass(frozen=True)
class Agreement:
    """How far people agree on an axis.

    Attributes:
        axis: Harmlessness or helpfulness.
        choices: How many they made, ties among them.
        annotators: How many people have a name.
        shared: Pairs of replies that several people compared.
        alpha: Krippendorff's alpha over these; None where there are none.
        decided: Choices, without ties, on pairs that the judge compared.
        with_judge: Share of these in which the judge preferred the same reply.
    """

    axis: str
    choices: int
    annotators: int
    shared: int
    alpha: Metric | None
    decided: int
    with_judge: Metric | None


@dataclass
class _Pair:
    """What was said of two replies, as shares of the first: by the judge and by each person."""

    prompt: str
    judge: float | None
    people: dict[str, float]


def choices_for(evaluation: Evaluation, summary: Summary, replies: Sequence[Reply]) -> list[Match]:
    """Read what people chose in the arena between the systems of an evaluation."""
    path = choices_of(evaluation)
    if not path.is_file():
        return []
    names = [system.name for system in summary.systems]
    found = choices_in(path, names, {row.prompt_id for row in replies})
    return [match_of_choice(choice) for choice in found]


def rated(summary: Summary, matches: Sequence[Match]) -> Summary:
    """Add people's Elo to the systems of a run; where there is no scale, a note says so."""
    names = [system.name for system in summary.systems]
    anchor = SL_CAI if SL_CAI in names else names[0]
    metrics = {system.name: dict(system.metrics) for system in summary.systems}
    notes = list(summary.notes)
    for key, (judge, axis) in RATINGS.items():
        said = [m for m in matches if judge == "human" and (m.judge, m.axis) == (judge, axis)]
        if not said:
            continue
        try:
            contests = [Contest(m.first, m.second, m.outcome, m.prompt_id) for m in said]
            for name, found in rate(contests, anchor).items():
                metrics[name][key] = _metric(Interval(found.elo, found.low, found.high))
        except ValueError as error:
            notes.append(UNLINKED.format(axis, error))
    systems = [replace(system, metrics=metrics[system.name]) for system in summary.systems]
    return replace(summary, systems=systems, notes=notes)


def agreement(runs: Sequence[Named]) -> list[Agreement]:
    """Measure on each axis how far people agree with each other and with the judge."""
    return [_on(axis, found) for axis in AXES if (found := _pairs(runs, axis))]


def _on(axis: str, pairs: Sequence[_Pair]) -> Agreement:
    shared = [pair for pair in pairs if len(pair.people) > 1]
    together = [
        (pair.prompt, 0.5 if pair.judge == 0.5 else float((pair.judge > 0.5) == (value > 0.5)))
        for pair in pairs
        for value in pair.people.values()
        if pair.judge is not None and value != 0.5
    ]
    named = {name for pair in pairs for name in pair.people if not name.startswith("\0")}
    return Agreement(
        axis,
        sum(len(pair.people) for pair in pairs),
        len(named),
        len(shared),
        _alpha(shared),
        len(together),
        _share(together),
    )


def _alpha(pairs: Sequence[_Pair]) -> Metric | None:
    """Estimate alpha, with an interval from a bootstrap over prompts."""
    if of_comparisons([list(pair.people.values()) for pair in pairs]) is None:
        return None
    most = max(len(pair.people) for pair in pairs)
    table = np.full((len(pairs), most), np.nan)
    for row, pair in zip(table, pairs, strict=True):
        row[: len(pair.people)] = list(pair.people.values())

    def statistic(rows: np.ndarray) -> float:
        alpha = of_comparisons([row[~np.isnan(row)].tolist() for row in rows])
        return math.nan if alpha is None else alpha

    return _metric(clustered_bootstrap(table, [p.prompt for p in pairs], statistic, RESAMPLES))


def _share(together: Sequence[tuple[str, float]]) -> Metric | None:
    if not together:
        return None
    prompts, same = zip(*together, strict=True)
    return _metric(clustered_bootstrap(same, prompts, statistics.fmean, RESAMPLES))


def _pairs(runs: Sequence[Named], axis: str) -> list[_Pair]:
    """Put together what was said of the same two replies; those that runs share count once."""
    judged: dict[object, float] = {}
    said: dict[object, _Pair] = {}
    for run in runs:
        models = {system.name: system.model for system in run.summary.systems}
        mine = [match for match in run.matches if match.axis == axis]
        judged |= dict(_unit(match, models) for match in mine if match.judge == "judge")
        for match in mine:
            if match.judge == "human":
                unit, outcome = _unit(match, models)
                pair = said.setdefault(unit, _Pair(match.prompt_id, None, {}))
                # A choice without a name is somebody else's each time.
                pair.people[match.annotator or f"\0{len(pair.people)}"] = outcome
    for unit, pair in said.items():
        pair.judge = judged.get(unit)
    return list(said.values())


def _unit(match: Match, models: Mapping[str, str]) -> tuple[object, float]:
    """Name two replies whichever comes first, and say how they did in that order."""
    first, second = models[match.first], models[match.second]
    outcome = match.outcome
    if second < first:
        first, second, outcome = second, first, 1 - outcome
    return (match.prompt_id, match.sample, first, second), outcome


def _metric(found: Interval) -> Metric:
    low, high = (b if math.isfinite(b) else None for b in (found.low, found.high))
    return Metric(found.value, low, high)


def notes_of(found: Sequence[Agreement]) -> Iterator[str]:
    """Say what the figures mean, where there are any."""
    if any(one.alpha is not None for one in found):
        yield (
            "Alpha is Krippendorff's, over pairs of replies that several people compared, a tie "
            "lying between the two: 1 is perfect agreement and 0 what chance gives."
        )
    if any(one.with_judge is not None for one in found):
        yield (
            "With the judge: how often the judge prefers the reply that a person preferred, ties "
            "left out; 0.5 is chance."
        )
