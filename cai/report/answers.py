"""What an experiment found: the effect of each factor on its outcome, and whether they interact."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cai.report.collect import Result
from cai.report.effects import Effect, Trend
from cai.report.joined import AXES, Joined
from cai.report.names import FACTORS, OUTCOMES, SWITCHES, count, system_name
from cai.results.common import SL_CAI

SIZES = {True: 50.0, False: 0.1}
"""Effects whose power is told: of Elo, and of a share."""
MOST = 6
"""Interactions that are told."""


@dataclass(frozen=True)
class Contrast:
    """One setting of a factor against another, averaged over the settings of all others.

    Attributes:
        what: In words.
        effect: On the outcome.
        main: Whether it is an effect, and not an interaction of two.
    """

    what: str
    effect: Effect
    main: bool


@dataclass(frozen=True)
class Arm:
    """A policy and its setting of each factor."""

    policy: str
    levels: Mapping[str, str]


def arms_of(result: Result) -> list[Arm]:
    """Return the policies of an experiment, once each, with their settings."""
    found: dict[str, Arm] = {}
    for n, policy in enumerate(result.policies):
        levels = {factor: json.dumps(values[n]) for factor, values in result.levels.items()}
        found.setdefault(policy, Arm(policy, levels))
    return list(found.values())


def effects(result: Result, metric: str) -> list[Contrast]:
    """Estimate main effects and interactions on a metric; empty where they can't be had."""
    joined, arms = result.joined, arms_of(result)
    if joined is None or metric not in joined.ratings or len(arms) < 2:
        return []
    told = [
        _contrast(joined, metric, words, weights, main=True)
        for factor in result.levels
        for words, weights in _main(arms, factor)
    ]
    both = [
        _contrast(joined, metric, words, weights, main=False)
        for one, other in itertools.combinations(result.levels, 2)
        for words, weights in _interactions(arms, one, other)
    ]
    return [found for found in (*told, *both[:MOST]) if found is not None]


Weights = dict[str, float]


def _main(arms: Sequence[Arm], factor: str) -> Iterator[tuple[str, Weights]]:
    """Yield each further level against the first, over the settings of all else that have both."""
    first, *others = _levels(arms, factor)
    for level in others:
        pairs = list(_matched(arms, factor, level, first))
        if pairs:
            words = f"{_name(factor)}: {_value(level)} instead of {_value(first)}"
            yield words, _weights([(pair, 1 / len(pairs)) for pair in pairs])


def _levels(arms: Sequence[Arm], factor: str) -> list[str]:
    """Return the settings of a factor in the order they were given; off is what on is held to."""
    found = dict.fromkeys(arm.levels[factor] for arm in arms)
    return sorted(found) if found.keys() <= {"false", "true"} else list(found)


def _matched(arms: Sequence[Arm], factor: str, level: str, first: str) -> Iterator[tuple[Arm, Arm]]:
    """Yield arms that differ in one factor alone."""
    for a, b in itertools.permutations(arms, 2):
        rest = [{k: v for k, v in arm.levels.items() if k != factor} for arm in (a, b)]
        if (a.levels[factor], b.levels[factor]) == (level, first) and rest[0] == rest[1]:
            yield a, b


def _interactions(arms: Sequence[Arm], one: str, other: str) -> Iterator[tuple[str, Weights]]:
    """Yield how the effect of one factor differs between two settings of another."""
    first, *levels = _levels(arms, one)
    usual, *settings = _levels(arms, other)
    for level, setting in itertools.product(levels, settings):
        pairs = list(_matched(arms, one, level, first))
        there = [pair for pair in pairs if pair[0].levels[other] == setting]
        here = [pair for pair in pairs if pair[0].levels[other] == usual]
        if there and here:
            words = (
                f"{_name(one)} ({_value(level)}) with {_name(other)} {_value(setting)} instead of "
                f"{_value(usual)}"
            )
            shares = [(pair, 1 / len(there)) for pair in there]
            yield words, _weights([*shares, *((pair, -1 / len(here)) for pair in here)])


def _weights(pairs: Sequence[tuple[tuple[Arm, Arm], float]]) -> Weights:
    weights: Weights = {}
    for (a, b), share in pairs:
        weights[a.policy] = weights.get(a.policy, 0.0) + share
        weights[b.policy] = weights.get(b.policy, 0.0) - share
    return weights


def _contrast(
    joined: Joined, metric: str, words: str, weights: Weights, *, main: bool
) -> Contrast | None:
    found = joined.contrast(metric, weights)
    if found is None:
        return None
    effect = Effect(found.value, found.low, found.high, joined.prompts[metric])
    return Contrast(words, effect, main)


def answer(result: Result) -> list[str]:
    """Answer the experiment's question in a sentence for each factor, and say what it rests on."""
    joined, metric = result.joined, result.question.outcome
    found = [contrast for contrast in effects(result, metric) if contrast.main]
    policies = list(dict.fromkeys(result.policies))
    if joined is None or metric not in joined.ratings:
        return [NOTHING]
    if not found:
        repeated = len(policies) == 1 and joined.repeated
        return _answer_of_repeats(result, joined, policies[0]) if repeated else [NOTHING]
    noun, unit, decimals = OUTCOMES[metric]
    recipes = ", ".join(dict.fromkeys(system_name(run.recipe) for run in result.runs))
    subject = f"{noun} of {recipes}"
    sentences = [_told(contrast, subject, unit, decimals) for contrast in found]
    return [*sentences, _rests(joined, metric, policies)]


def _answer_of_repeats(result: Result, joined: Joined, policy: str) -> list[str]:
    """Say what each step of the method did where nothing was varied but the seed."""
    known = {system.id for system in result.systems}
    chain = [name for name in ("helpful", SL_CAI, policy) if name in known]
    steps = [(*pair, metric) for pair in itertools.pairwise(chain) for metric in AXES]
    told = []
    for before, after, metric in (*steps, (chain[0], chain[-1], "engaged")):
        if metric in joined.ratings:
            found = joined.ratings[metric].against(after, before)
            effect = Effect(found.value, found.low, found.high, joined.prompts[metric])
            what = f"{system_name(after)} against {system_name(before)}"
            told.append(_told(Contrast(what, effect, main=True), *OUTCOMES[metric]))
    return [*told, _rests(joined, result.question.outcome, chain[-2:])]


NOTHING = (
    "These runs give no answer: they share no judge and prompts, or no two of them differ in one "
    "setting alone."
)


def _told(contrast: Contrast, noun: str, unit: str, decimals: int) -> str:
    effect, trend = contrast.effect, contrast.effect.trend()
    bounds = f"{effect.low:+.{decimals}f} to {effect.high:+.{decimals}f}"
    figure = f"{effect.value:+.{decimals}f}{unit} ({bounds})"
    verbs = {Trend.rises: "rises", Trend.falls: "falls"}
    if trend is Trend.unclear:
        return f"{contrast.what}: no effect on the {noun} that this experiment can show, {figure}."
    return f"{contrast.what}: the {noun} {verbs[trend]}, {figure}."


def _rests(joined: Joined, metric: str, arms: Sequence[str]) -> str:
    """Say what the answer rests on, and what would be needed to see an effect of a given size."""
    ratings = joined.ratings[metric]
    seeds = [len(ratings.shifts[ratings.arms.index(name)]) for name in arms]
    size = SIZES[ratings.unit != 1]
    needed = ratings.needed(arms[0], arms[1], size)
    _, unit, _ = OUTCOMES[metric]
    told = f"{count(joined.prompts[metric], 'prompt')} and {count(min(seeds), 'seed')} of each arm"
    options = []
    if needed.prompts is not None:
        options.append(count(needed.prompts, "prompt"))
    if needed.seeds is not None and joined.repeated:
        options.append(f"{count(needed.seeds, 'seed')} of each arm")
    shown = f"{size:g}{unit}"
    if not options:
        return f"This rests on {told}; more of either alone would not show an effect of {shown}."
    return (
        f"This rests on {told}; to see a difference of {shown} between two arms four times in "
        f"five, about {' or '.join(options)} would do."
    )


def spread_of_seeds(joined: Joined, metric: str) -> float | None:
    """Return the standard deviation of a metric between seeds; None if nothing was repeated."""
    found = joined.ratings.get(metric)
    if found is None:
        return None
    variance = found.seed_variance()
    return None if math.isnan(variance) else found.unit * math.sqrt(max(0.0, variance))


def _name(factor: str) -> str:
    return FACTORS.get(factor, factor)


def _value(level: str) -> str:
    value = str(json.loads(level))
    return SWITCHES.get(value, value)
