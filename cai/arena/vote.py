"""Who compares what next, and what was chosen."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from cai.arena.ballots import Ballot, Pair, Side
from cai.arena.choosing import CHOICES, choice_row
from cai.arena.runs import Run
from cai.data.choices import append_choice
from cai.seeds import seed_of

SHARED = 4
"""One in so many ballots is of those that everybody compares, so that agreement can be measured."""


class Shown(NamedTuple):
    """A ballot as one person sees it."""

    ballot: Ballot
    left: Side
    right: Side


class Progress(NamedTuple):
    """How many ballots a person has done, of how many, and whether there is a way back."""

    done: int
    total: int
    back: bool


@dataclass
class _Place:
    """Where a person is on an axis: what was done, in its order, and what is shown."""

    done: dict[Ballot, str]
    shown: Shown | None = None


class VoteDesk:
    """Hands out ballots and takes choices, for any number of people at once.

    Everybody gets every pair of systems equally often, up to one, and each system of a pair stands
    equally often on the left: sides are drawn in blocks of two. Every fourth ballot is one that all
    share; the others are those that fewest people have compared.
    """

    def __init__(self, runs: Sequence[Run], ballots: Mapping[str, Sequence[Ballot]]) -> None:
        """Take up what was chosen before.

        Raises:
            UserError: If a file of choices can't be read.
        """
        self._runs = {run.name: run for run in runs}
        self._piles = {axis: _piles(found) for axis, found in ballots.items()}
        self._totals = {axis: len(found) for axis, found in ballots.items()}
        self._places: dict[tuple[str, str], _Place] = defaultdict(lambda: _Place({}))
        self._compared: Counter[Ballot] = Counter()
        self._lock = threading.RLock()
        units = {
            (run, b.axis, b.prompt_id, b.sample, frozenset(b.pair[:2])): b
            for found in ballots.values()
            for b in found
            for run in b.runs
        }
        for run in runs:
            for choice in run.chosen():
                pair = frozenset((choice.a, choice.b))
                unit = (run.name, choice.axis, choice.prompt_id, choice.sample, pair)
                if unit in units and choice.annotator is not None:
                    self._take(choice.annotator, units[unit], choice.a)

    def show(self, annotator: str, axis: str) -> Shown | None:
        """Return what a person compares now: the same until they choose; None at the end."""
        with self._lock:
            place = self._places[annotator, axis]
            if place.shown is None:
                ballot = self._next(place, axis)
                place.shown = None if ballot is None else _placed(annotator, place, ballot)
            return place.shown

    def choose(self, annotator: str, axis: str, key: str | None, said: str) -> bool:
        """Keep a choice; one about a ballot that is not in front of the person does not count.

        Args:
            annotator: Who chooses.
            axis: On what.
            key: Of the ballot that they saw.
            said: ``left``, ``right`` or ``tie``.

        Raises:
            UserError: If it can't be written; it is not counted then.
        """
        with self._lock:
            place = self._places[annotator, axis]
            if place.shown is None or place.shown.ballot.key != key or said not in CHOICES:
                return False
            shown = place.shown
            for run in shown.ballot.runs:
                append_choice(self._runs[run].choices, _row(annotator, shown, said))
            self._take(annotator, shown.ballot, shown.left.system)
            place.shown = None
            return True

    def back(self, annotator: str, axis: str) -> None:
        """Show the ballot before this one again."""
        with self._lock:
            place = self._places[annotator, axis]
            order = list(place.done)
            now = place.shown.ballot if place.shown else None
            before = order[: order.index(now)] if now in place.done else order
            if before:
                last = before[-1]
                place.shown = _sides(last, last.first.system == place.done[last])

    def progress(self, annotator: str, axis: str) -> Progress:
        """Say how far a person is."""
        with self._lock:
            place = self._places[annotator, axis]
            now = place.shown.ballot if place.shown else None
            back = bool(place.done) and now != next(iter(place.done))
            return Progress(len(place.done), self._totals[axis], back)

    def _take(self, annotator: str, ballot: Ballot, left: str) -> None:
        done = self._places[annotator, ballot.axis].done
        if ballot not in done:
            self._compared[ballot] += 1
            done[ballot] = left

    def _next(self, place: _Place, axis: str) -> Ballot | None:
        """Choose a pair of systems that this person has compared least, and a ballot of it."""
        mine = Counter(ballot.pair for ballot in place.done)
        open_piles = {
            pair: left
            for pair, pile in self._piles[axis].items()
            if (left := [ballot for ballot in pile if ballot not in place.done])
        }
        if not open_piles:
            return None
        pair = min(open_piles, key=lambda name: mine[name])
        pile = self._piles[axis][pair]
        common = set(pile[: -(-len(pile) // SHARED)])
        shared = [ballot for ballot in open_piles[pair] if ballot in common]
        others = [ballot for ballot in open_piles[pair] if ballot not in common]
        if shared and (not others or mine[pair] % SHARED == 0):
            return shared[0]
        waiting = Counter(p.shown.ballot for p in self._places.values() if p.shown)
        return min(others, key=lambda ballot: self._compared[ballot] + waiting[ballot])


def _piles(ballots: Sequence[Ballot]) -> dict[Pair, list[Ballot]]:
    """Sort ballots by who meets whom, in their order."""
    piles: dict[Pair, list[Ballot]] = {}
    for ballot in ballots:
        piles.setdefault(ballot.pair, []).append(ballot)
    return piles


def _placed(annotator: str, place: _Place, ballot: Ballot) -> Shown:
    """Draw the sides, in blocks of two."""
    earlier = sum(done.pair == ballot.pair for done in place.done)
    coin = seed_of("side", annotator, ballot.axis, ballot.pair, earlier // 2) % 2
    return _sides(ballot, coin == earlier % 2)


def _sides(ballot: Ballot, first_left: bool) -> Shown:
    sides = (ballot.first, ballot.second) if first_left else (ballot.second, ballot.first)
    return Shown(ballot, *sides)


def _row(annotator: str, shown: Shown, said: str) -> dict[str, Any]:
    systems = (shown.left.system, shown.right.system)
    where = {"prompt_id": shown.ballot.prompt_id, "sample": shown.ballot.sample}
    return choice_row(annotator, shown.ballot.axis, systems, said) | where
