"""What people say on the page: their Elo beside the judge's, and how far they agree."""

import json
import math

import pytest
from report.made import match, reply, system, write_result

from cai.algorithms.agreement import of_comparisons
from cai.contracts.found import choices_of, find_evaluation
from cai.data.choices import append_choice
from cai.errors import UserError
from cai.files import write_json
from cai.report import collect, write_report
from cai.report.people import UNLINKED
from cai.results.common import Metric

NAMES = ("helpful", "sl_cai", "rl_cai")


def evaluation(folder, name="evaluate-1", outcomes=(0.9, 0.9, 0.2, 0.5), models=NAMES, **summary):
    elo = {"harmlessness_elo": Metric(12.0)}
    matches = [match("sl_cai", "rl_cai", n, outcome) for n, outcome in enumerate(outcomes)]
    systems = [system(who, f"m-{model}", **elo) for who, model in zip(NAMES, models)]
    replies = [reply(who, n) for who in NAMES for n in range(len(outcomes))]
    return write_result(folder / "artifacts" / name, systems, matches, replies, **summary)


def choose(made, who, prompt, said, a="sl_cai", b="rl_cai", **more):
    row = {"a": a, "b": b, "prompt_id": f"p{prompt}", "axis": "harmlessness", "choice": said}
    append_choice(choices_of(made), {**row, "annotator": who, **more})


def test_choices_of_the_arena_are_rated_and_compared_by_hand(tmp_path):
    made = evaluation(tmp_path)
    assert choices_of(made) == tmp_path / "arena" / "evaluate-1.jsonl"
    choose(made, "ann", 0, "a")
    choose(made, "ben", 0, "b", a="rl_cai", b="sl_cai")  # the same choice, the other way round
    choose(made, "ann", 1, "b")
    choose(made, "ben", 1, "a")
    choose(made, "ann", 2, "tie")
    choose(made, "ann", 3, "a")  # the judge is undecided
    result = collect([made.path])
    [found] = result.people
    assert (found.axis, found.choices, found.annotators) == ("harmlessness", 6, 2)
    assert (found.shared, found.decided) == (2, 5)
    assert found.alpha.value == pytest.approx(of_comparisons([(1, 1), (0, 1)]))
    assert found.with_judge.value == pytest.approx((1 + 1 + 0 + 1 + 0.5) / 5)
    # For SL-CAI are 1 + 1 + 0 + 1 + .5 + 1 of 6, and half an imagined win each way.
    elo = {one.name: one.metrics.get("harmlessness_elo_human") for one in result.systems}
    assert elo["rl_cai"].value == pytest.approx(400 * math.log10(2.0 / 5.0))
    assert elo["sl_cai"].value == 0
    assert elo["helpful"] is None
    page = write_report(result, tmp_path / "report.html").read_text()
    assert "Krippendorff" in page
    for heading in ("harmless Elo, judge", "harmless Elo, people", "alpha", "with the judge"):
        assert page.count(f">{heading}</button>") == 1


def test_a_later_choice_of_the_same_person_counts(tmp_path):
    made = evaluation(tmp_path)
    choose(made, "ann", 0, "b")
    choose(made, "ann", 0, "b", a="rl_cai", b="sl_cai")
    [found] = collect([made.path]).people
    assert (found.choices, found.with_judge.value) == (1, 1.0)


def test_samples_are_different_replies(tmp_path):
    made = evaluation(tmp_path)
    choose(made, "ann", 0, "b")
    choose(made, "ben", 0, "a", sample=1)
    [found] = collect([made.path]).people
    assert (found.choices, found.shared, found.alpha, found.decided) == (2, 0, None, 1)


def test_a_chat_is_rated_and_has_no_judge(tmp_path):
    made = evaluation(tmp_path)
    talk = [{"role": "user", "content": "Hello"}]
    choose(made, "ann", "-of-a-chat", "a", messages=talk)
    result = collect([made.path])
    [found] = result.people
    assert (found.choices, found.decided, found.with_judge) == (1, 0, None)
    assert result.systems[2].metrics["harmlessness_elo_human"].value < 0


def test_pairs_that_runs_share_count_once(tmp_path):
    """Both runs have the same SL-CAI and the same assistant, of which one choice was made."""
    both = [
        evaluation(tmp_path, f"evaluate-{n}", models=("helpful", "sl_cai", f"rl-{n}"),
                   settings={"n": n}) for n in range(2)
    ]  # fmt: skip
    for n, made in enumerate(both):
        choose(made, "ann", 0, "a", b="helpful")
        choose(made, "ben", 0, "a", b="helpful")
        choose(made, "ann", 1, "ab"[n])
    result = collect([made.path for made in both])
    [found] = result.people
    assert (found.choices, found.shared) == (4, 1)
    assert found.alpha.value == 1


def test_choices_without_a_scale_are_said_and_not_rated(tmp_path):
    made = evaluation(tmp_path)
    choose(made, "ann", 0, "a", a="rl_cai", b="helpful")
    result = collect([made.path])
    assert result.notes == [UNLINKED.format("harmlessness", "the anchor 'sl_cai' is in no "
                            "comparison; systems: ['rl_cai', 'helpful']")]  # fmt: skip
    assert all("harmlessness_elo_human" not in one.metrics for one in result.systems)
    assert "alpha" in write_report(result, tmp_path / "r.html").read_text()


def test_a_bad_line_is_named(tmp_path):
    made = evaluation(tmp_path)
    choose(made, "ann", 0, "a")
    choose(made, "ann", 99, "a")
    with pytest.raises(UserError, match=r"evaluate-1\.jsonl:2 is malformed: prompt_id='p99'"):
        collect([made.path])


def test_an_evaluation_is_found_by_its_run_or_missed_in_a_sentence(tmp_path):
    made = evaluation(tmp_path)
    run = tmp_path / "runs" / "now"
    run.mkdir(parents=True)
    with pytest.raises(UserError, match=r"now' holds no evaluation: give folders"):
        find_evaluation(run)
    write_json(run / "result.json", {"artifact": str(made.path)})
    assert find_evaluation(run).path == made.path
    assert json.loads((made.path / "summary.json").read_text())["recipe"] == "rl_cai"
