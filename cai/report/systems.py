"""Systems as the report shows them, and the one scale on which several runs are put."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from cai.algorithms.elo import RATINGS, Contest, rate
from cai.report.names import system_name
from cai.results.common import Metric
from cai.results.systems import Match

OWN_SCALES = (
    "These runs share no system, so there is no scale for all of them: an Elo counts from the "
    "SL-CAI of its own run (or its first system). The other columns compare as they are."
)
PARTIAL = ("endpoint", "human")
"""Judges who need not have compared all systems."""
PARTLY = (
    "Not all systems here were linked by the comparisons of an endpoint or of people: where they "
    "were not, that judge's Elo counts from the SL-CAI of its own run (or its first system)."
)


@dataclass(frozen=True)
class System:
    """A system of one run or more.

    Attributes:
        name: As its evaluation calls it.
        about: What tells it from its namesakes in other runs; empty if nothing needs to.
        model: The result that made it.
        metrics: By name.
    """

    name: str
    about: str
    model: str
    metrics: dict[str, Metric]

    @property
    def id(self) -> str:
        """Its name in files and in rows of the joined result."""
        return f"{self.name} ({self.about})" if self.about else self.name

    @property
    def title(self) -> str:
        """Its name for people."""
        shown = system_name(self.name)
        return f"{shown} ({self.about})" if self.about else shown


def zero_of(systems: Sequence[System]) -> System:
    """Return the system whose Elo is 0: SL-CAI, or the first where it is not among them."""
    return next((system for system in systems if system.name == "sl_cai"), systems[0])


def rate_together(systems: dict[str, System], matches: Sequence[Match]) -> str | None:
    """Replace the ratings of single runs by one fit; say so where comparisons don't link them.

    People and endpoints may have compared only some systems of some runs, which leaves the
    scales of the other judges whole.
    """
    anchor = zero_of(list(systems.values())).id
    fits, note = {}, None
    for metric, (judge, axis) in RATINGS.items():
        chosen = _contests(matches, judge, axis)
        try:
            fits[metric] = rate(chosen, anchor) if chosen else {}
        except ValueError:
            if judge not in PARTIAL:
                return OWN_SCALES
            note = PARTLY
    for metric, ratings in fits.items():
        for name, rating in ratings.items():
            bounds = [b if math.isfinite(b) else None for b in (rating.low, rating.high)]
            systems[name].metrics[metric] = Metric(rating.elo, *bounds)
    return note


def _contests(matches: Sequence[Match], judge: str, axis: str) -> list[Contest]:
    return [
        Contest(match.first, match.second, match.outcome, match.prompt_id)
        for match in matches
        if match.judge == judge and match.axis == axis
    ]


def judged_prompts(matches: Sequence[Match]) -> dict[str, int]:
    """Return the number of prompts that each rating rests on."""
    prompts: dict[tuple[str, str], set[str]] = defaultdict(set)
    for match in matches:
        prompts[match.judge, match.axis].add(match.prompt_id)
    return {metric: len(prompts[key]) for metric, key in RATINGS.items() if key in prompts}
