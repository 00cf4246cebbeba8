"""Several runs on one scale: one judge, the same prompts, seeds as repeats, and the answer."""

import math
import random
import re
from dataclasses import replace

import pytest
from report.made import match, reply, system, write_result

from cai.algorithms.elo import ELO_PER_NAT
from cai.contracts.policies import Evaluation
from cai.report import collect, write_report
from cai.report.answers import answer, effects, spread_of_seeds
from cai.report.collect import Question
from cai.report.joined import over_seeds
from cai.report.systems import levels_of
from cai.results.common import Metric
from cai.results.systems import Summary

PROMPTS = 40


def run(path, policy, lift, *, seed=0, judge="judge-1", prompts=range(PROMPTS), **settings):
    """Write a run whose policy the judge puts ``lift`` above SL-CAI on every prompt, with noise."""
    draw = random.Random(f"{policy}")
    base = {n: random.Random(n).gauss(0, 1) for n in prompts}
    rows = [
        reply(who, n, style="evasive" if draw.random() < 0.2 else "compliance",
              judge_score=base[n] + level + draw.gauss(0, 0.3))
        for who, level in (("helpful", -0.5), ("sl_cai", 0.0), ("rl_cai", lift))
        for n in prompts
    ]  # fmt: skip
    systems = [system("helpful", "helpful-1"), system("sl_cai", f"sft-{seed}"),
               system("rl_cai", policy)]  # fmt: skip
    if seed == 0:
        shared = random.Random("shared")
        for row_number, row in enumerate(rows):
            if row.system == "sl_cai":
                rows[row_number] = reply("sl_cai", int(row.prompt_id[1:]),
                                         judge_score=base[int(row.prompt_id[1:])]
                                         + shared.gauss(0, 0.3))  # fmt: skip
    matches = [match("rl_cai", "sl_cai", n, 0.5, by=judge) for n in prompts]
    return write_result(path, systems, matches, rows, settings={"seed": seed, **settings}).path


def grid(folder, lift=lambda cot, smooth: 0.5 * cot, seeds=(0, 1)):
    return [
        run(folder / f"evaluate-{cot}-{smooth}-{seed}", f"rl-{cot}-{smooth}-{seed}",
            lift(cot, smooth), seed=seed,
            **{"feedback.cot": cot, "pm.label_smoothing": smooth})
        for cot in (False, True)
        for smooth in (0.0, 0.2)
        for seed in seeds
    ]  # fmt: skip


def test_runs_that_differ_in_their_seed_alone_are_one_arm(tmp_path):
    result = collect(grid(tmp_path))
    assert [one.id for one in result.systems] == [
        "helpful", "sl_cai", *(f"rl_cai (feedback.cot={cot}, pm.label_smoothing={smooth})"
                               for cot in (False, True) for smooth in (0.0, 0.2))
    ]  # fmt: skip
    assert [len(one.models) for one in result.systems] == [1, 2, 2, 2, 2, 2]
    assert result.levels == {
        "feedback.cot": [False] * 4 + [True] * 4,
        "pm.label_smoothing": [0.0, 0.0, 0.2, 0.2] * 2,
    }


def test_effects_are_those_that_were_put_in(tmp_path):
    """Chains of thought lift every score by 0.5 and smoothing by nothing: 0.5 nats of log-odds.

    Scores have noise, so that replies win and lose, which draws a rating towards 0 a little.
    """
    result = collect(grid(tmp_path), Question("Do chains help?"))
    found = {one.what: one.effect for one in effects(result, "harmlessness_elo") if one.main}
    cot = found["Chains of thought: on instead of off"]
    assert cot.value == pytest.approx(0.5 * ELO_PER_NAT, rel=0.25)
    assert cot.low < 0.5 * ELO_PER_NAT * 0.95 < cot.high and cot.low > 0
    smoothing = found["Label smoothing: 0.2 instead of 0.0"]
    assert smoothing.low < 0 < smoothing.high
    first, second, rests = answer(result)
    assert first.startswith(
        "Chains of thought: on instead of off: the harmlessness of RL-CAI rises"
    )
    assert "no effect on the harmlessness of RL-CAI that this experiment can show" in second
    assert rests.startswith("This rests on 40 prompts and 2 seeds of each arm; to see")


def test_on_is_held_to_off_in_whatever_order_the_arms_ran(tmp_path):
    folders = grid(tmp_path)
    there, back = (
        {one.what: one.effect.value for one in effects(collect(found), "harmlessness_elo")}
        for found in (folders, [*folders[4:], *folders[:4]])
    )
    assert there.keys() == back.keys()
    assert "Chains of thought: on instead of off" in back
    assert back == pytest.approx(there, abs=1)  # Elo; the first run gives the replies of SL-CAI


def test_an_interaction_is_a_difference_of_differences(tmp_path):
    folders = grid(tmp_path, lift=lambda cot, smooth: float(cot and smooth > 0))
    [both] = [c for c in effects(collect(folders), "harmlessness_elo") if not c.main]
    assert both.what == "Chains of thought (on) with Label smoothing 0.2 instead of 0.0"
    assert both.effect.low > 0
    assert both.effect.value == pytest.approx(ELO_PER_NAT, rel=0.3)


def test_runs_by_different_judges_are_not_compared(tmp_path):
    folders = [
        run(tmp_path / "evaluate-a", "rl-a", 0.5, n=1),
        run(tmp_path / "evaluate-b", "rl-b", 0.5, judge="judge-2", n=2),
    ]
    result = collect(folders)
    assert any("judged by different judges (judge-1, judge-2)" in note for note in result.notes)
    assert not any("harmlessness_elo" in one.metrics for one in result.systems)
    assert all("evasiveness" in one.metrics for one in result.systems)  # the rest goes on
    assert answer(result)[0].startswith("These runs give no answer")
    assert "give no answer" in write_report(result, tmp_path / "r.html").read_text()


def test_runs_over_different_prompts_are_compared_on_those_that_all_share(tmp_path):
    folders = [
        run(tmp_path / "evaluate-a", "rl-a", 0.5, n=1),
        run(tmp_path / "evaluate-b", "rl-b", 0.5, prompts=range(20, 60), n=2),
    ]
    result = collect(folders)
    assert any("rests on the 20 prompts that all asked" in note for note in result.notes)
    apart = run(tmp_path / "evaluate-c", "rl-c", 0.5, prompts=range(100, 140), n=3)
    result = collect([folders[0], apart])
    assert any(note.startswith("These runs share no prompt") for note in result.notes)


def test_an_arm_that_lacks_a_seed_counts_with_those_it_has(tmp_path):
    folders = grid(tmp_path)
    result = collect(folders[:-1])
    assert [len(one.models) for one in result.systems][-1] == 1
    assert effects(result, "harmlessness_elo")


def test_one_seed_is_said(tmp_path):
    result = collect(grid(tmp_path, seeds=(0,)))
    assert any(
        note.startswith("No arm was trained with more than one seed") for note in result.notes
    )
    assert spread_of_seeds(result.joined, "harmlessness_elo") is None
    assert 'id="seeds"' not in write_report(result, tmp_path / "r.html").read_text()


def test_a_share_over_seeds_stays_between_none_and_all(tmp_path):
    """Two seeds, of which one has five evasive replies in forty and the other none."""
    paths = []
    for seed, evasive in ((0, 0), (1, 5)):
        path = run(tmp_path / f"evaluate-{seed}", f"rl-{seed}", 0.5, seed=seed)
        made = Evaluation("evaluate", "", path)
        rows = made.replies.read()
        made.replies.write(
            replace(row, evasive=row.system == "rl_cai" and int(row.prompt_id[1:]) < evasive)
            for row in rows
        )
        paths.append(path)
    policy = next(one for one in collect(paths).systems if one.id == "rl_cai")
    found = policy.metrics["evasiveness"]
    assert found.value == pytest.approx(0.0625)
    assert found.low == 0.0 < found.high < 1.0


def test_seeds_of_one_setting_are_answered_by_what_each_step_did(tmp_path):
    """The judge has SL-CAI 0.5 nats above the start and RL-CAI 0.8 above SL-CAI: 87 and 139 Elo."""
    paths = [run(tmp_path / f"evaluate-{n}", f"rl-{n}", 0.8, seed=n) for n in range(3)]
    first, second, objections, rests = answer(collect(paths))
    for sentence, names, elo in (
        (first, "SL-CAI against Helpful-only assistant: ", 87),
        (second, "RL-CAI against SL-CAI: the harmlessness rises, ", 139),
    ):
        assert sentence.startswith(names)
        told = float(re.search(r"([+-]\d+) Elo", sentence).group(1))
        assert told == pytest.approx(elo, abs=25)
    assert objections.startswith(
        "RL-CAI against Helpful-only assistant: no effect on the share of replies that decline with"
    )
    assert rests.startswith(f"This rests on {PROMPTS} prompts and 3 seeds of each arm")


def test_a_metric_over_seeds_by_hand():
    """0.2 and 0.4 with half-widths of 0.0980 (0.05 standard errors): variance 0.0025 + 0.01."""
    found = over_seeds([Metric(0.2, 0.102, 0.298), Metric(0.4, 0.302, 0.498)])
    half = 1.96 * math.sqrt(0.0025 + 0.02 / 2)
    assert found.value == pytest.approx(0.3)
    assert (found.low, found.high) == pytest.approx((0.3 - half, 0.3 + half))


def test_of_settings_that_change_together_one_is_a_factor():
    def summary(**settings):
        return Summary("rl_cai", settings, [], [], [], [])

    runs = [summary(**{"recipe.name": n, "recipe.cot": c, "feedback.cot": c, "seed": s, "x": x})
            for n, c, s, x in (("a", 0, 1, 1), ("b", 1, 2, 1))]  # fmt: skip
    assert levels_of(runs) == {"recipe.name": ["a", "b"]}


def test_the_page_begins_with_the_answer(tmp_path):
    result = collect(grid(tmp_path), Question("Do chains of thought make better labels?"))
    page = write_report(result, tmp_path / "r.html").read_text()
    places = [
        page.index(f'<section id="{key}">') for key in ("answer", "effects", "seeds", "systems")
    ]
    assert places == sorted(places)
    assert "Do chains of thought make better labels?" in page
