import math
import subprocess
import sys

import numpy as np
import pytest

from cai.algorithms.elo import (
    Contest,
    fit,
    rate,
)


def win_probability(difference):
    """What Elo says: 1 / (1 + 10^(-d/400))."""
    return 1 / (1 + 10 ** (-difference / 400))


def record(first, second, wins, losses, ties=0):
    outcomes = [1.0] * wins + [0.0] * losses + [0.5] * ties
    return [Contest(first, second, outcome, f"prompt {i}") for i, outcome in enumerate(outcomes)]


def league(truth, prompts, seed):
    """Every pair of systems meets once on each prompt."""
    draw = np.random.default_rng(seed)
    names = list(truth)
    return [
        Contest(a, b, float(draw.random() < win_probability(truth[a] - truth[b])), str(prompt))
        for prompt in range(prompts)
        for i, a in enumerate(names)
        for b in names[i + 1 :]
    ]


def test_two_systems_match_the_closed_form():
    # 30 wins, 10 losses, without a prior: 400 log10(3) = 190.848502.
    matches = record("a", "b", 30, 10)
    assert fit(matches, "b", prior=0)["a"] == pytest.approx(190.848502, abs=1e-5)
    assert fit(matches, "b", prior=0)["b"] == 0
    assert fit(matches, "a", prior=0)["b"] == pytest.approx(-190.848502, abs=1e-5)
    # Four ties add two wins to each: 400 log10(32 / 12).
    tied = record("a", "b", 30, 10, ties=4)
    assert fit(tied, "b", prior=0)["a"] == pytest.approx(400 * math.log10(32 / 12), rel=1e-12)
    # The default prior adds half a win to each: 400 log10(30.5 / 10.5).
    assert fit(matches, "b")["a"] == pytest.approx(400 * math.log10(30.5 / 10.5), rel=1e-12)


def test_the_order_of_a_match_does_not_matter():
    turned = [
        Contest(b, a, 1 - outcome, prompt) for a, b, outcome, prompt in record("a", "b", 7, 3)
    ]
    assert fit(turned, "b")["a"] == pytest.approx(fit(record("a", "b", 7, 3), "b")["a"], rel=1e-12)


def test_the_likelihood_equations_hold():
    # At the maximum every system's wins are as many as its ratings lead to expect.
    matches = league({"a": 0, "b": 150, "c": -300, "d": 40}, 60, seed=0)
    elo = fit(matches, "a", prior=0)
    for name in elo:
        won = sum(m.outcome if m.first == name else 1 - m.outcome for m in matches if name in m[:2])
        expected = sum(
            win_probability(elo[name] - elo[m.second if m.first == name else m.first])
            for m in matches
            if name in m[:2]
        )
        assert won == pytest.approx(expected, rel=1e-9)


def test_ratings_of_systems_that_never_met_are_chained():
    # a : b is 3 : 1 and b : c is 3 : 1, so a : c is 9 : 1.
    matches = record("a", "b", 30, 10) + record("b", "c", 30, 10)
    assert fit(matches, "c", prior=0)["a"] == pytest.approx(400 * math.log10(9), rel=1e-12)


def test_extreme_records_converge():
    matches = record("a", "b", 3000, 0) + record("b", "c", 3000, 1) + record("d", "c", 0, 5)
    elo = fit(matches, "c")
    assert elo["a"] - elo["b"] == pytest.approx(400 * math.log10(3000.5 / 0.5), rel=1e-9)
    assert elo["b"] == pytest.approx(400 * math.log10(3000.5 / 1.5), rel=1e-9)
    assert elo["d"] == pytest.approx(400 * math.log10(0.5 / 5.5), rel=1e-9)


def test_a_system_that_won_everything_needs_the_prior():
    with pytest.raises(ValueError, match="need a prior"):
        fit(record("a", "b", 8, 0), "b", prior=0)
    weak, strong = (fit(record("a", "b", 8, 0), "b", prior)["a"] for prior in (0.1, 2.0))
    assert strong == pytest.approx(400 * math.log10(9), rel=1e-12)
    assert weak > strong


def test_groups_that_never_met_are_named():
    matches = record("sl", "rl", 3, 3) + record("hh", "helpful", 2, 1)
    with pytest.raises(ValueError, match=r"never met: hh, helpful \| sl, rl; compare"):
        fit(matches, "sl")


def test_an_unknown_anchor_is_named():
    with pytest.raises(ValueError, match="'sl' is in no comparison"):
        fit(record("a", "b", 1, 1), "sl")


@pytest.mark.parametrize("match", [("a", "a", 1.0, "p"), ("a", "b", 2.0, "p")])
def test_impossible_matches_are_refused(match):
    with pytest.raises(ValueError, match="not a comparison"):
        fit([Contest(*match)], "a")


def test_intervals_hold_the_truth_19_times_in_20():
    truth = {"sl": 0.0, "rl": 120.0, "helpful": -50.0}
    inside = []
    for seed in range(150):
        ratings = rate(league(truth, 120, seed), "sl", samples=300, seed=seed)
        inside += [r.low <= truth[name] <= r.high for name, r in ratings.items() if name != "sl"]
    # 300 intervals (correlated in pairs): the standard error is at most 1.8 %.
    assert 0.905 <= np.mean(inside) <= 0.985


def test_intervals_are_clustered_by_prompt():
    single = league({"a": 0.0, "b": 100.0}, 100, seed=1)
    copied = [match for match in single for _ in range(9)]
    independent = [m._replace(prompt=str(i)) for i, m in enumerate(copied)]
    widths = {}
    for name, matches in (("single", single), ("copied", copied), ("independent", independent)):
        found = rate(matches, "a", prior=1e-6)["b"]
        widths[name] = found.high - found.low
    # Copies of a verdict bring nothing; nine times the independent ones narrow it to a third.
    assert widths["copied"] == pytest.approx(widths["single"], rel=1e-3)
    assert widths["independent"] == pytest.approx(widths["single"] / 3, rel=0.15)


def test_ratings_are_seeded_and_options_count():
    matches = league({"a": 0.0, "b": 100.0, "c": 30.0}, 40, seed=2)
    base = rate(matches, "a")
    assert base == rate(matches, "a")
    assert base["a"] == (0, 0, 0, 80)
    assert {name: r.elo for name, r in base.items()} == fit(matches, "a")
    for options in ({"seed": 1}, {"samples": 50}, {"level": 0.5}, {"prior": 5.0}):
        assert rate(matches, "a", **options)["b"] != base["b"]
    narrow = rate(matches, "a", level=0.5)["b"]
    assert base["b"].low < narrow.low < narrow.elo < narrow.high < base["b"].high


def test_no_interval_from_one_prompt_or_without_prior():
    found = rate([Contest("a", "b", 1.0, "p"), Contest("b", "a", 1.0, "p")], "a")["b"]
    assert found.elo == pytest.approx(0, abs=1e-9)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    with pytest.raises(ValueError, match="must be above 0"):
        rate(record("a", "b", 3, 2), "a", prior=0)


def test_reports_are_joined_without_torch():
    code = (
        "import sys, cai.algorithms.elo, cai.algorithms.calibration, cai.algorithms.diversity;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
