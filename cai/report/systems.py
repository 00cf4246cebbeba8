"""Systems as the report shows them: one setting of one method, trained with one seed or several."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from cai.report.names import FACTORS, SWITCHES, system_name
from cai.results.common import SL_CAI, Metric
from cai.results.systems import Match, Reply, Summary

SEED = "seed"
UNTOLD = frozenset({SEED, "constitution.description"})
"""Settings that do not tell one arm of an experiment from another."""


@dataclass(frozen=True)
class System:
    """A system of one run or more.

    Attributes:
        name: As its evaluation calls it.
        about: What tells it from its namesakes in other runs; empty if nothing needs to.
        models: The results that made it, one for each seed.
        metrics: By name.
    """

    name: str
    about: str
    models: tuple[str, ...]
    metrics: dict[str, Metric]

    @property
    def id(self) -> str:
        """Its name in files and in rows of the joined result."""
        return f"{self.name} ({self.about})" if self.about else self.name

    @property
    def title(self) -> str:
        """Its name for people."""
        shown, about = system_name(self.name), self.about
        for key, name in FACTORS.items():
            for value, word in SWITCHES.items():
                about = re.sub(rf"{re.escape(key)}={value}\b", f"{name.lower()} {word}", about)
            about = about.replace(f"{key}=", f"{name.lower()} ")
        return f"{shown} ({about})" if about else shown

    @property
    def model(self) -> str:
        """The results that made it, as one text."""
        return ", ".join(self.models)


class Named(NamedTuple):
    """A run with its systems as they are shown.

    Attributes:
        summary: What it wrote.
        replies: Of all its systems.
        matches: By all who compared them.
        ids: Of its systems, by the name that it gives them.
    """

    summary: Summary
    replies: list[Reply]
    matches: list[Match]
    ids: dict[str, str]


def zero_of(systems: Sequence[System]) -> System:
    """Return the system whose Elo is 0: SL-CAI, or the first where it is not among them."""
    return next((system for system in systems if system.name == SL_CAI), systems[0])


def differing(runs: Sequence[Summary]) -> list[str]:
    """Return the settings in which runs differ, but for the seed."""
    keys = sorted({key for run in runs for key in run.settings} - UNTOLD)
    values = {key: {json.dumps(run.settings.get(key)) for run in runs} for key in keys}
    return [key for key in keys if len(values[key]) > 1]


def arm_of(run: Summary, keys: Sequence[str]) -> str:
    """Say which arm a run is of, by the settings that tell arms apart."""
    return ", ".join(f"{key}={run.settings.get(key)}" for key in keys)


def describe(runs: Sequence[Summary]) -> list[dict[str, System]]:
    """Name the systems of each run, by the name that the run gives them.

    Runs that differ in their seed alone are one arm, and its systems are one with several models.
    A model that arms share has one name.
    """
    keys = differing(runs)
    abouts = [arm_of(run, keys) for run in runs]
    made: dict[tuple[str, ...], dict[Any, set[str]]] = defaultdict(lambda: defaultdict(set))
    by_arm: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for run, about in zip(runs, abouts, strict=True):
        for system in run.systems:
            made[(system.name,)][run.settings.get(SEED)].add(system.model)
            made[system.name, about][run.settings.get(SEED)].add(system.model)
            by_arm[system.name][about].add(system.model)

    def told(name: str, model: str, about: str) -> str:
        if _one_each(made[(name,)]) and _shared(by_arm[name]):
            return ""
        return about if _one_each(made[name, about]) else ", ".join(filter(None, [about, model]))

    return [
        {
            system.name: System(
                system.name,
                told(system.name, system.model, about),
                (system.model,),
                dict(system.metrics),
            )
            for system in run.systems
        }
        for run, about in zip(runs, abouts, strict=True)
    ]


def _one_each(models: Mapping[Any, set[str]]) -> bool:
    """Tell whether each seed made one model."""
    return all(len(found) == 1 for found in models.values())


def _shared(models: Mapping[str, set[str]]) -> bool:
    """Tell whether arms have the same models, or, where seeds are missing, some of them."""
    most = max(models.values(), key=len)
    return all(found <= most for found in models.values())


def levels_of(runs: Sequence[Summary]) -> dict[str, list[Any]]:
    """Return the factors of an experiment: settings that differ, with the value of each run.

    Of settings that always change together the one with the shortest name stands for all.
    """
    patterns: dict[tuple[int, ...], str] = {}
    for key in differing(runs):
        values = [json.dumps(run.settings.get(key)) for run in runs]
        order = list(dict.fromkeys(values))
        pattern = tuple(order.index(value) for value in values)
        if pattern not in patterns or _plainer(key, patterns[pattern]):
            patterns[pattern] = key
    return {key: [run.settings.get(key) for run in runs] for key in patterns.values()}


def _plainer(key: str, other: str) -> bool:
    """Tell whether a key stands for another that always changes with it."""
    return (not key.endswith(".name"), len(key)) < (not other.endswith(".name"), len(other))
