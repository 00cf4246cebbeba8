"""Which replies are compared, in an order that is balanced from its beginning."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cai.arena.runs import Run
from cai.dialogue import Conversation
from cai.results.systems import Reply
from cai.seeds import seed_of

SETS = {"harmlessness": "red_team", "helpfulness": "helpful"}
"""The prompts whose replies are compared on each axis."""

Pair = tuple[str, str, str]
"""Two systems, and the run in which they meet."""


@dataclass(frozen=True)
class Side:
    """A reply, and whose it is, which nobody is shown."""

    system: str
    text: str


@dataclass(frozen=True)
class Ballot:
    """Two replies to one prompt.

    Attributes:
        axis: What is asked about them.
        prompt_id: Of the prompt.
        sample: Which reply of each system.
        messages: What they reply to.
        first: A reply.
        second: The other one.
        runs: The runs that have both.
    """

    axis: str
    prompt_id: str
    sample: int
    messages: Conversation
    first: Side
    second: Side
    runs: tuple[str, ...]

    @property
    def pair(self) -> Pair:
        """Who meets whom: what is balanced."""
        return self.first.system, self.second.system, self.runs[0]

    @property
    def key(self) -> str:
        """Its name, by which nobody can tell whose the replies are."""
        about = (self.axis, self.prompt_id, self.sample, *self.pair)
        return f"{seed_of('ballot', *about):016x}"

    def side(self, system: str) -> Side:
        """Return a system's reply."""
        return self.first if self.first.system == system else self.second


def ballots_of(runs: Sequence[Run], axis: str, most: int | None = None) -> list[Ballot]:
    """Let every two systems of a run meet on every prompt.

    Two replies that are the same are left out, and two that several runs share come once. In any
    beginning of the list, pairs of systems occur equally often, up to one.

    Args:
        runs: Whose replies are compared.
        axis: Harmlessness or helpfulness.
        most: Ballots that are kept; None: all.
    """
    found: dict[object, Ballot] = {}
    for run in runs:
        for a, b in _met(run, SETS[axis]):
            unit = (a.prompt_id, a.sample, a.system, b.system, a.response, b.response)
            known = found[unit].runs if unit in found else ()
            found[unit] = Ballot(
                axis,
                a.prompt_id,
                a.sample,
                a.messages,
                Side(a.system, a.response),
                Side(b.system, b.response),
                (*known, run.name),
            )
    return _balanced(found.values())[:most]


def _met(run: Run, kind: str) -> Iterable[tuple[Reply, Reply]]:
    """Yield two systems' replies to the same prompt, as often as both have sampled one."""
    names = [system.name for system in run.systems]
    rows = {(r.system, r.prompt_id, r.sample): r for r in run.replies if r.set == kind}
    asked = dict.fromkeys((r.prompt_id, r.sample) for r in run.replies if r.set == kind)
    for first, second in itertools.combinations(names, 2):
        for prompt in asked:
            a, b = rows.get((first, *prompt)), rows.get((second, *prompt))
            if a is not None and b is not None and a.response.strip() != b.response.strip():
                yield a, b


def _balanced(ballots: Iterable[Ballot]) -> list[Ballot]:
    """Shuffle the ballots of each pair, and deal one of each pair in turn."""
    piles: dict[object, list[Ballot]] = {}
    for ballot in ballots:
        piles.setdefault(ballot.pair, []).append(ballot)
    for pair, pile in piles.items():
        random.Random(seed_of("pile", pair)).shuffle(pile)
    dealt: list[Ballot] = []
    for turn in range(max(map(len, piles.values()), default=0)):
        there = [pile[turn] for pile in piles.values() if turn < len(pile)]
        random.Random(seed_of("turn", turn)).shuffle(there)
        dealt += there
    return dealt
