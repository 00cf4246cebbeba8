"""Sections on instruments: the judge, other opinions, harm, persona, the paper's tests."""

from report.made import BINS, match, reply, system, write_result, write_whole

from cai.report import collect, comparison_table, write_report
from cai.report.joined import UNLINKED
from cai.results.common import Metric
from cai.results.systems import PaperFile, PaperResult, PaperTests, StageRun


def test_the_report_shows_judges_harm_and_persona(tmp_path):
    result = collect([write_whole(tmp_path / "evaluate-0").path])
    page = write_report(result, tmp_path / "report.html").read_text()
    for key in ("judge", "opinions", "harmfulness", "persona"):
        assert f'<section id="{key}">' in page
    for heading in ("harmless Elo, people", "harm, 0 to 4", "persona consistency"):
        assert page.count(f">{heading}</button>") == 1
    assert "helpful Elo, people" not in page  # nobody compared helpfulness
    assert "root mean square error" in page
    assert "322 comparisons of harmlessness and 206 comparisons of helpfulness" in page
    assert "n: 20 questions" in page
    head, *_ = comparison_table(result).splitlines()
    assert head.endswith("harmless Elo, people")


def test_a_scale_that_people_did_not_link_is_left_out(tmp_path):
    """The judge links both runs by its scores; people compared SL-CAI in one of them only."""
    folders = []
    for run, meets in (("a", "sl_cai"), ("b", "helpful")):
        names = {"helpful": f"m-h{run}", "sl_cai": "m-s", "rl_cai": f"m-r{run}"}
        elo = {"harmlessness_elo": Metric(123.0), "harmlessness_elo_human": Metric(123.0)}
        matches = [match("rl_cai", name, 0, 0.75) for name in names if name != "rl_cai"]
        matches.append(match("rl_cai", meets, 0, 1.0, judge="human", by="people"))
        systems = [system(name, model, **elo) for name, model in names.items()]
        replies = [reply(name, n) for name in names for n in range(3)]
        folder = tmp_path / f"evaluate-{run}"
        made = write_result(folder, systems, matches, replies, settings={"n": run})
        folders.append(made.path)
    result = collect(folders)
    assert UNLINKED.format("people") in result.notes
    for one in result.systems:
        assert one.metrics["harmlessness_elo"].value == 0.0  # all scores are alike
        assert "harmlessness_elo_human" not in one.metrics


def paper_run(path, policy, tests):
    systems = [system("sl_cai", "sft-1"), system("rl_cai", policy)]
    matches = [match("sl_cai", "rl_cai", n, 0.4, axis=axis)
               for axis in ("harmlessness", "helpfulness") for n in range(3)]  # fmt: skip
    evaluation = write_result(path, systems, matches, settings={"n": policy},
                              stages=[StageRun("pm", f"pm-{policy}")])  # fmt: skip
    if tests:
        right = Metric(1.0, 1.0, 1.0)
        results = [
            PaperResult("hhh", name, "zero_shot", 4, 0, 0, 4, right, 0.5, 0.5, 0.25, BINS)
            for name in ("sl_cai", "rl_cai")
        ]
        results.append(PaperResult("hhh", "pm", "pm", 4, 0, 0, 4, Metric(0.0), 0.5, None, None, []))
        file = PaperFile("hhh", "<b>438", 5, 4, ["f:9: x"])
        evaluation.paper_tests.write(PaperTests([file], results))
    return path


def test_the_report_shows_the_tests_and_joins_runs(tmp_path):
    one, two = (paper_run(tmp_path / name, f"rl-{name}", True) for name in ("one", "two"))
    without = paper_run(tmp_path / "without", "rl-3", False)
    assert collect([without]).paper == []
    assert 'id="paper"' not in write_report(collect([without]), tmp_path / "r.html").read_text()
    [test] = collect([one, two]).paper
    assert [(result.system, result.accuracy.value) for result in test.results] == [
        ("sl_cai", 1.0),
        ("rl_cai (n=rl-one)", 1.0),
        ("pm (pm-rl-one)", 0.0),
        ("rl_cai (n=rl-two)", 1.0),
        ("pm (pm-rl-two)", 0.0),
    ]
    page = write_report(collect([one, two]), tmp_path / "r.html").read_text()
    section = page[page.index('<section id="paper"') :]
    assert "&lt;b&gt;438: 4 of 5 questions." in section
    assert "1 row could not be read: f:9: x." in section
    assert "By multiple choice." in section
    assert '1.000 <span class="interval">[1.000, 1.000]</span>' in section
    assert "Preference model (pm-rl-two)" in section
