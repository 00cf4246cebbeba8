"""Comparing: blind, balanced, shared in part, and resumed where somebody stopped."""

import itertools
from collections import Counter

import pytest
from arena.made import NAMES, made_run, replies_of, write_run, written

from cai.arena.ballots import ballots_of
from cai.arena.choosing import name_of
from cai.arena.runs import open_run, open_runs
from cai.arena.vote import VoteDesk
from cai.config import BadRows
from cai.data.choices import read_choices
from cai.errors import UserError

AXIS = "harmlessness"


def desk_of(*runs, most=None):
    return VoteDesk(runs, {axis: ballots_of(runs, axis, most) for axis in (AXIS, "helpfulness")})


def vote(desk, who, n, said="left", axis=AXIS):
    """Vote n times and return what was shown."""
    seen = []
    for _ in range(n):
        shown = desk.show(who, axis)
        assert desk.choose(who, axis, shown.ballot.key, said)
        seen.append(shown)
    return seen


# Ballots


def test_every_two_systems_meet_on_every_prompt_of_the_axis(tmp_path):
    run = made_run(tmp_path, rows=[r for who in NAMES for r in replies_of(who, 5, samples=2)])
    for axis, kind in ((AXIS, "red_team"), ("helpfulness", "helpful")):
        ballots = ballots_of([run], axis)
        assert {(b.pair[:2], b.prompt_id, b.sample) for b in ballots} == {
            (pair, f"{kind}-{prompt}", sample)
            for pair in itertools.combinations(NAMES, 2)
            for prompt in range(5)
            for sample in range(2)
        }
        assert len(ballots) == 30
        assert len({b.key for b in ballots}) == 30


def test_any_beginning_is_balanced(tmp_path):
    ballots = ballots_of([made_run(tmp_path)], AXIS)
    for n in range(1, len(ballots) + 1):
        counts = Counter(b.pair for b in ballots[:n])
        counts.update(dict.fromkeys({b.pair for b in ballots}, 0))
        assert max(counts.values()) - min(counts.values()) <= 1
    assert ballots_of([made_run(tmp_path / "again")], AXIS, 7) == ballots[:7]


def test_equal_replies_are_not_compared(tmp_path):
    rows = replies_of("helpful") + replies_of("rl_cai")
    rows += replies_of("sl_cai", said="0 says {n} to {kind} {prompt}")  # what the first one says
    pairs = {b.pair[:2] for b in ballots_of([made_run(tmp_path, rows=rows)], AXIS)}
    assert pairs == {("helpful", "rl_cai"), ("sl_cai", "rl_cai")}


def test_a_missing_reply_is_passed_over(tmp_path):
    rows = [row for who in NAMES for row in replies_of(who)]
    run = made_run(tmp_path, rows=[r for r in rows if r.prompt_id != "red_team-3" or
                                   r.system == "helpful"])  # fmt: skip
    assert {b.prompt_id for b in ballots_of([run], AXIS)} == {
        f"red_team-{n}" for n in range(8) if n != 3
    }


def test_what_runs_share_is_compared_once_and_written_to_both(tmp_path):
    own = replies_of("rl_cai", said="other {kind} {prompt}")
    shared = replies_of("helpful") + replies_of("sl_cai")
    runs = [
        made_run(tmp_path, "evaluate-1"),
        made_run(tmp_path, "evaluate-2", rows=shared + own),
    ]
    ballots = ballots_of(runs, AXIS)
    assert Counter(b.runs for b in ballots) == {
        ("evaluate-1", "evaluate-2"): 8, ("evaluate-1",): 16, ("evaluate-2",): 16
    }  # fmt: skip
    desk = desk_of(*runs)
    vote(desk, "ann", len(ballots))
    assert [len(written(run)) for run in runs] == [24, 24]


# Who sees what


def test_everybody_meets_every_pair_equally_often_with_equal_sides(tmp_path):
    desk = desk_of(made_run(tmp_path))
    for who in ("ann", "ben", "cleo"):
        shown = []
        while len(shown) < 24:
            shown += vote(desk, who, 1)
            pairs = Counter(s.ballot.pair for s in shown)
            assert (
                max(pairs.values()) - min([pairs[p] for p in pairs] + [0] * (3 - len(pairs))) <= 1
            )
            for pair in pairs:
                first = [s.left.system == pair[0] for s in shown if s.ballot.pair == pair]
                assert abs(2 * sum(first) - len(first)) <= 1
        assert desk.show(who, AXIS) is None
        assert len({s.ballot for s in shown}) == 24


def test_sides_can_not_be_foreseen(tmp_path):
    desk = desk_of(made_run(tmp_path))
    first = [desk.show(f"person {n}", AXIS) for n in range(60)]
    lefts = Counter(s.left.system == s.ballot.first.system for s in first)
    assert 15 < lefts[True] < 45


def test_a_quarter_is_shared_and_the_rest_spread(tmp_path):
    desk = desk_of(made_run(tmp_path))
    seen = {who: {s.ballot for s in vote(desk, who, 12)} for who in ("ann", "ben")}
    both = seen["ann"] & seen["ben"]
    assert len(both) == 3  # of twelve: the first of each pair's four
    assert len(seen["ann"] | seen["ben"]) == 21


def test_two_at_once_get_different_ballots_where_they_are_not_shared(tmp_path):
    desk = desk_of(made_run(tmp_path))
    vote(desk, "ann", 3)
    vote(desk, "ben", 3)
    assert desk.show("ann", AXIS).ballot != desk.show("ben", AXIS).ballot


def test_the_ballot_stays_until_it_is_voted_on(tmp_path):
    desk = desk_of(made_run(tmp_path))
    shown = desk.show("ann", AXIS)
    vote(desk, "ben", 10)
    assert desk.show("ann", AXIS) is shown


# Choosing


def test_a_choice_is_written_as_an_evaluation_reads_it(tmp_path):
    run = made_run(tmp_path)
    desk = desk_of(run)
    said = ("left", "right", "tie")
    shown = [vote(desk, "ann", 1, one)[0] for one in said]
    rows = written(run)
    assert [row["choice"] for row in rows] == ["a", "b", "tie"]
    assert [(row["a"], row["b"]) for row in rows] == [
        (s.left.system, s.right.system) for s in shown
    ]
    choices = read_choices(run.choices, NAMES, {f"red_team-{n}" for n in range(8)}, BadRows.strict)
    assert [c.outcome for c in choices] == [1.0, 0.0, 0.5]
    assert {c.annotator for c in choices} == {"ann"}


@pytest.mark.parametrize("key", ["stale", None])
def test_a_vote_on_another_ballot_does_not_count(tmp_path, key):
    run = made_run(tmp_path)
    desk = desk_of(run)
    old = vote(desk, "ann", 1)[0].ballot.key
    desk.show("ann", AXIS)
    assert not desk.choose("ann", AXIS, old if key == "stale" else None, "left")
    assert not desk.choose("ben", AXIS, old, "left")  # nothing is shown to ben
    assert len(written(run)) == 1


def test_axes_are_apart(tmp_path):
    desk = desk_of(made_run(tmp_path))
    vote(desk, "ann", 3)
    vote(desk, "ann", 1, axis="helpfulness")
    assert desk.progress("ann", AXIS)[:2] == (3, 24)
    assert desk.progress("ann", "helpfulness")[:2] == (1, 24)
    assert desk.progress("ben", AXIS) == (0, 24, False)


def test_somebody_who_comes_back_goes_on(tmp_path):
    run = made_run(tmp_path)
    seen = vote(desk_of(run), "ann", 9)
    again = desk_of(run)
    assert again.progress("ann", AXIS) == (9, 24, True)
    rest = vote(again, "ann", 15)
    assert again.show("ann", AXIS) is None
    assert len({s.ballot for s in seen + rest}) == 24
    for pair in {s.ballot.pair for s in seen}:
        lefts = [s.left.system == pair[0] for s in seen + rest if s.ballot.pair == pair]
        assert sum(lefts) == 4  # of eight, over both sittings


def test_a_choice_can_be_mended(tmp_path):
    run = made_run(tmp_path)
    desk = desk_of(run)
    first, second = vote(desk, "ann", 2)
    assert desk.progress("ann", AXIS).back
    desk.back("ann", AXIS)
    assert desk.show("ann", AXIS) == second
    desk.back("ann", AXIS)
    assert desk.show("ann", AXIS) == first
    assert not desk.progress("ann", AXIS).back
    desk.back("ann", AXIS)
    assert desk.show("ann", AXIS) == first
    assert desk.choose("ann", AXIS, first.ballot.key, "right")
    assert desk.progress("ann", AXIS).done == 2
    assert len(written(run)) == 3
    found = read_choices(run.choices, NAMES, {f"red_team-{n}" for n in range(8)}, BadRows.strict)
    assert [c.outcome for c in found] == [0.0, 1.0]
    assert desk.show("ann", AXIS).ballot not in (first.ballot, second.ballot)


def test_what_can_not_be_written_is_not_counted(tmp_path):
    run = made_run(tmp_path)
    desk = desk_of(run)
    shown = desk.show("ann", AXIS)
    run.choices.parent.write_text("a file where the folder should be")
    with pytest.raises(UserError, match="the choice was not kept"):
        desk.choose("ann", AXIS, shown.ballot.key, "left")
    assert desk.progress("ann", AXIS).done == 0
    assert desk.show("ann", AXIS) == shown


# Runs and names


def test_runs_that_can_not_be_used_are_said(tmp_path):
    with pytest.raises(UserError, match="holds no evaluation"):
        open_run(tmp_path)
    folder = write_run(tmp_path)
    (folder / "replies.jsonl").write_text('{"system": 1}\n')
    with pytest.raises(UserError, match=r"can't be read .* run stage=evaluate again"):
        open_run(folder)


def test_one_system_has_nobody_to_meet(tmp_path):
    folder = write_run(tmp_path, models=NAMES[:1])
    with pytest.raises(UserError, match="evaluated one system only"):
        open_run(folder)


def test_a_run_given_twice_is_opened_once(tmp_path):
    folder = write_run(tmp_path)
    assert len(open_runs([folder, folder / ".." / folder.name])) == 1


@pytest.mark.parametrize("name", [None, "", "  \t ", "x" * 41, "a\x00b", "a\u202eb"])
def test_no_name(name):
    with pytest.raises(UserError, match="name of 1 to 40 letters"):
        name_of(name)


def test_a_name_is_the_same_however_it_is_typed():
    assert name_of("  Zoe\u0308   Q ") == "Zo\u00eb Q"
