"""Several runs on one scale: the same prompts, one judge, arms repeated over seeds."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cai.algorithms.arms import ArmRatings, Effect, mean_arms, rate_arms
from cai.algorithms.elo import RATINGS, Contest, rate
from cai.report.systems import Named, System, zero_of
from cai.results.common import Metric
from cai.results.systems import Match, Reply

DIFFERENT = (
    "These runs were judged by different judges ({}), so their Elo can't be compared and is left "
    "out: evaluate them with the same model, data and judge."
)
APART = (
    "These runs share no prompt that all their systems answered, so there is no scale for all of "
    "them: evaluate them with the same data and evaluate.prompts."
)
FEWER = "Not all runs asked the same prompts: what is compared rests on the {} that all asked."
UNLINKED = (
    "The comparisons of {} don't link all systems here, so its Elo is left out: each run alone has "
    "its own."
)
SEVERAL = (
    "{} is not the same in all runs (another assistant or other principles), so its Elo is left "
    "out: each run alone has its own."
)
ONE_SEED = (
    "No arm was trained with more than one seed, so intervals speak of prompts alone: another seed "
    "may give another answer."
)

AXES = {"harmlessness_elo": "red_team", "helpfulness_elo": "helpful"}
"""Ratings that are made of the judge's scores, and the prompts that they rest on."""

Read = Callable[[Reply], float | None]

SHARES: Mapping[str, tuple[str, Read]] = {
    "evasiveness": ("red_team", lambda row: float(row.evasive)),
    "refusal_red_team": ("red_team", lambda row: float(row.refusal)),
    "engaged": ("red_team", lambda row: float(row.style == "engaged")),
    "boilerplate": ("red_team", lambda row: float(row.boilerplate)),
    "over_refusal": ("borderline", lambda row: float(row.refusal)),
}
"""Shares of replies by metric: to which prompts, and what is counted."""
MORE_SHARES = frozenset({"compliance", "generic", "deflection", "recurrence", "repetition"})
"""Those that are only averaged."""


@dataclass
class Joined:
    """What several runs say together.

    Attributes:
        ratings: By metric: Elo of the systems, or shares of their replies.
        anchor: Id of the system at 0 Elo.
        prompts: How many prompts each metric rests on.
        notes: What has to be said.
        by: The judge's name, if all have one.
    """

    anchor: str
    ratings: dict[str, ArmRatings] = field(default_factory=dict)
    prompts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    by: str | None = None

    def contrast(self, metric: str, weights: Mapping[str, float]) -> Effect | None:
        """Estimate a contrast of systems; None if not all of them have the metric."""
        found = self.ratings.get(metric)
        if found is None or not set(weights) <= set(found.arms):
            return None
        return found.effect(weights)

    @property
    def repeated(self) -> bool:
        """Whether any system was trained with more than one seed."""
        return any(found.seeds for found in self.ratings.values())


def join(systems: dict[str, System], runs: Sequence[Named]) -> Joined:
    """Rate all systems of all runs together, and put what is found into their metrics."""
    joined = Joined(zero_of(list(systems.values())).id)
    _average(systems, runs)
    tables = _Tables(runs)
    judges = sorted({m.by for run in runs for m in run.matches if m.judge == "judge"})
    if len(judges) > 1:
        joined.notes.append(DIFFERENT.format(", ".join(judges)))
    else:
        joined.by = judges[0] if judges else None
        _rate(joined, tables)
    for metric, (kind, read) in SHARES.items():
        _add(joined, metric, tables.of(kind, read), mean_arms)
    _rate_by_matches(joined, systems, runs)
    _fill(joined, systems)
    _keep_in_bounds(systems)
    if not joined.repeated:
        joined.notes.append(ONE_SEED)
    return joined


def _fill(joined: Joined, systems: Mapping[str, System]) -> None:
    """Put estimates into the systems' metrics; a rating of one run alone is taken out."""
    for metric in RATINGS.keys() - joined.prompts.keys():
        for system in systems.values():
            system.metrics.pop(metric, None)
    for metric, found in joined.ratings.items():
        for arm in found.arms:
            effect = found.level(arm) if found.unit == 1 else found.against(arm, joined.anchor)
            systems[arm].metrics[metric] = Metric(effect.value, effect.low, effect.high)


def _keep_in_bounds(systems: Mapping[str, System]) -> None:
    """Cut intervals, which are symmetric about a mean over seeds, at what a share can be."""
    for system in systems.values():
        for name in (SHARES.keys() | MORE_SHARES) & system.metrics.keys():
            metric = system.metrics[name]
            if metric.low is not None and metric.high is not None:
                system.metrics[name] = replace(
                    metric, low=max(0.0, metric.low), high=min(1.0, metric.high)
                )


class _Tables:
    """Numbers of replies as seeds by prompts, for each system."""

    def __init__(self, runs: Sequence[Named]) -> None:
        """Take each model's replies once, whichever runs have it."""
        self.rows: dict[str, dict[str, list[Reply]]] = defaultdict(dict)
        for run in runs:
            made = {system.name: system.model for system in run.summary.systems}
            by_system: dict[str, list[Reply]] = defaultdict(list)
            for row in run.replies:
                by_system[row.system].append(row)
            for name, rows in by_system.items():
                self.rows[run.ids[name]].setdefault(made[name], rows)

    def of(self, kind: str, read: Read) -> dict[str, list[dict[str, float]]]:
        """Return a number for each prompt, by system and model, averaged over samples."""
        return {
            system: [_by_prompt(rows, kind, read) for rows in models.values()]
            for system, models in self.rows.items()
        }


def _by_prompt(rows: Sequence[Reply], kind: str, read: Read) -> dict[str, float]:
    found: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        value = read(row) if row.set == kind else None
        if value is not None:
            found[row.prompt_id].append(value)
    return {prompt: sum(values) / len(values) for prompt, values in found.items()}


def _rate(joined: Joined, tables: _Tables) -> None:
    for metric, kind in AXES.items():
        _add(joined, metric, tables.of(kind, lambda row: row.judge_score), rate_arms)


def _add(
    joined: Joined,
    metric: str,
    found: Mapping[str, Sequence[Mapping[str, float]]],
    estimate: Callable[[Mapping[str, list[list[float]]]], ArmRatings],
) -> None:
    """Estimate a metric from the prompts that all models answered."""
    having = {system: models for system, models in found.items() if all(models) and models}
    every = [set(model) for models in having.values() for model in models]
    if len(having) < 2:
        return
    shared = sorted(set.intersection(*every))
    if len(shared) < 2:
        if APART not in joined.notes:
            joined.notes.append(APART)
        return
    if any(len(prompts) > len(shared) for prompts in every):
        note = FEWER.format(f"{len(shared)} prompts")
        if metric in AXES and note not in joined.notes:
            joined.notes.append(note)
    joined.ratings[metric] = estimate(
        {
            system: [[model[prompt] for prompt in shared] for model in models]
            for system, models in having.items()
        }
    )
    joined.prompts[metric] = len(shared)


def _rate_by_matches(joined: Joined, systems: Mapping[str, System], runs: Sequence[Named]) -> None:
    """Rate by those who give no scores: each must be one and the same, and link all systems."""
    for metric, (judge, axis) in RATINGS.items():
        matches = [m for run in runs for m in _renamed(run) if (m.judge, m.axis) == (judge, axis)]
        if metric in joined.ratings or not matches or (judge == "judge" and joined.by is None):
            continue
        if len({match.by for match in matches}) > 1:
            joined.notes.append(SEVERAL.format("The model that judges under its constitution"))
            continue
        try:
            contests = [Contest(m.first, m.second, m.outcome, m.prompt_id) for m in matches]
            found = rate(contests, joined.anchor)
        except ValueError:
            name = {"human": "people", "constitution": "the model under its constitution"}
            joined.notes.append(UNLINKED.format(name.get(judge, "the judge")))
            continue
        joined.prompts[metric] = len({match.prompt_id for match in matches})
        for player, rating in found.items():
            bounds = [b if math.isfinite(b) else None for b in (rating.low, rating.high)]
            systems[player].metrics[metric] = Metric(rating.elo, *bounds)


def _renamed(run: Named) -> list[Match]:
    return [replace(m, first=run.ids[m.first], second=run.ids[m.second]) for m in run.matches]


def _average(systems: Mapping[str, System], runs: Sequence[Named]) -> None:
    """Average each metric over the models of a system.

    The interval is mean +- 1.96 sqrt(w^2 + s^2 / S) with w the mean standard error within a model,
    from prompts, which models share, and s the spread of S models.
    """
    found: dict[str, dict[str, dict[str, Metric]]] = defaultdict(dict)
    for run in runs:
        for system in run.summary.systems:
            found[run.ids[system.name]].setdefault(system.model, dict(system.metrics))
    for name, models in found.items():
        if len(models) > 1:
            keys = {key for metrics in models.values() for key in metrics}
            for key in sorted(keys):
                values = [metrics[key] for metrics in models.values() if key in metrics]
                systems[name].metrics[key] = over_seeds(values)


def over_seeds(values: Sequence[Metric]) -> Metric:
    """Average a metric over seeds; the interval covers prompts and seeds."""
    known = [metric for metric in values if metric.value is not None]
    if len(known) < 2:
        return known[0] if known else Metric(None)
    numbers = [metric.value for metric in known if metric.value is not None]
    mean = sum(numbers) / len(numbers)
    spread = sum((x - mean) ** 2 for x in numbers) / (len(numbers) - 1) / len(numbers)
    halves = [(m.high - m.low) / 2 for m in known if m.low is not None and m.high is not None]
    if len(halves) < len(known):
        return Metric(mean)
    within = (sum(halves) / len(halves) / 1.96) ** 2
    reach = 1.96 * math.sqrt(within + spread)
    return Metric(mean, mean - reach, mean + reach)
