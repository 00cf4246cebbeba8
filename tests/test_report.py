"""The report: hostile texts stay texts, nothing is fetched, and all its numbers agree."""

import base64
import csv
import hashlib
import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from report.made import (
    BINS,
    labels,
    match,
    preference_model,
    reply,
    revisions,
    system,
    write_result,
    write_whole,
)

from cai.dialogue import human
from cai.errors import UserError
from cai.report import __main__ as command
from cai.report import collect, comparison_table, write_report
from cai.report.page import script, style
from cai.report.tables import DECLINING, HEADLINE, SCORES, WRITING
from cai.results.common import Metric
from cai.results.labels import Agreement, HeldOut, PrincipleUse
from cai.results.revisions import Yield
from cai.results.systems import PaperFile, PaperResult, PaperTests, StageRun

EVIL = (
    "</div></section></style></script><script>alert('1')</script>{{ 7 * 7 }} $x^2$ \x08"
    "<img src=http://evil.example/x onerror=\"alert('2')\">\"'&amp;&lt; <!-- ]]> \u2028 "
    "<svg/onload=x>"
)
TAGS = {
    "html", "head", "meta", "title", "style", "script", "body", "header", "nav", "a", "h1", "h2",
    "h3", "section", "div", "p", "span", "i", "em", "table", "thead", "tbody", "tr", "th", "td",
    "button", "figure", "figcaption", "ul", "li", "details", "summary",
    "svg", "g", "path", "defs", "use", "text", "clippath", "rect",
}  # fmt: skip


@pytest.fixture
def hostile(tmp_path):
    """Return a result in which every text that a model, a user or a file may set is hostile."""
    elo = {"harmlessness_elo": Metric(1.0, 0.0, 2.0), "helpfulness_elo": Metric(1.0, 0.0, 2.0)}
    evaluation = write_result(
        tmp_path / "evaluate-0",
        [system(EVIL, EVIL, evasiveness=Metric(0.5), **elo), system("sl_cai", "m", **elo)],
        [match(EVIL, "sl_cai", n, 1.0) for n in range(3)],
        [
            reply(name, 0, EVIL, EVIL, kind=EVIL, prompt_id=EVIL, messages=(human(EVIL),))
            for name in (EVIL, "sl_cai")
        ] + [reply(EVIL, 1, EVIL, "evasive")],
        recipe=EVIL,
        settings={EVIL: EVIL},
        departures=[EVIL],
        notes=[EVIL],
        stages=[StageRun(EVIL, "pm-0"), StageRun("pm", "<b>")],
    )  # fmt: skip
    upstream = evaluation.upstream
    told = revisions(said=EVIL)
    step = replace(told.transcripts[0].rounds[0], principle=EVIL, critique=EVIL, faults=[EVIL])
    talk = replace(told.transcripts[0], messages=(human(EVIL),), response=EVIL, rounds=[step])
    upstream.revisions.write(replace(told, yields=[Yield(1, EVIL, 1, 1)], transcripts=[talk]))
    upstream.labels.write(
        labels(principles=[PrincipleUse(EVIL, 1, 0, []), PrincipleUse("b", 1, 0, [])],
               agreement=Agreement([EVIL, "b"], [[1.0, 0.5], [0.5, 1.0]]))
    )  # fmt: skip
    upstream.pm.write(preference_model(HeldOut(EVIL, 9, 0.5, 1.0, 0.1, 0.5, None)))
    upstream.history.write(
        {"step": n, "score": 0.1 * n, "sqrt_kl": 0.2 * n, EVIL: 1.0} for n in range(3)
    )
    results = [PaperResult("hhh", EVIL, "zero_shot", 4, 0, 0, 4, None, None, None, None, BINS)]
    evaluation.paper_tests.write(PaperTests([PaperFile("hhh", EVIL, 5, 4, [EVIL])], results))
    return evaluation.path


class Page(HTMLParser):
    """What a browser would see: tags with attributes, and text outside of style and script."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.inside, self.code = [], [], [], {}
        self.cells, self.notes = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag != "meta":
            self.inside.append(tag)
        if tag == "tr":
            self.cells.append([])
        elif tag in {"td", "th"}:
            self.cells[-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.inside.pop() == tag, "elements are closed in their order"

    def handle_data(self, data):
        where = self.inside[-1] if self.inside else ""
        if where in {"style", "script"}:
            self.code[where] = self.code.get(where, "") + data
        elif "tr" in self.inside:
            if {"td", "th"} & set(self.inside):
                self.cells[-1][-1] += data
        else:
            self.text.append(data)


def page_of(folders, tmp_path):
    result = collect(folders)
    path = write_report(result, tmp_path / "out" / "report.html")
    return Page(path.read_text(encoding="utf-8")), path, result


def test_hostile_texts_stay_texts(hostile, tmp_path):
    page, path, _ = page_of([hostile], tmp_path)
    assert {tag for tag, _ in page.tags} <= TAGS
    assert page.code == {"style": style(), "script": script()}
    assert [tag for tag, _ in page.tags].count("script") == 1
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name, value in attributes.items():
            assert name == "aria-label" or "alert" not in (value or "")
    text = "".join(page.text)
    # Title, heading, note, sample, replies, transcript, departure, artifact, legends, tests.
    assert text.count(EVIL) >= 16
    cells = [cell for row in page.cells for cell in row]
    assert cells.count(EVIL) >= 6
    assert "<!--" not in path.read_text().replace("&lt;!--", "")
    assert "49" not in text.replace("[", " "), "a text is no template"


def test_hostile_names_in_figures_stay_texts(hostile, tmp_path):
    """As XML would be read: names keep their $ and tags, and what XML can't hold is replaced."""
    page, path, _ = page_of([hostile], tmp_path)
    drawings = re.findall(r"<svg.*?</svg>", path.read_text(), re.DOTALL)
    assert len(drawings) >= 7
    said = " ".join(EVIL.replace("\x08", "\ufffd").split())
    titles = [t for drawing in drawings for t in Page(drawing).text]
    assert said in titles, "of a point in the frontier, and of a bar"
    assert any(text == f"{said[:20]}…{said[-34:]}" for text in titles), "above the bar"
    labels = [attributes.get("aria-label", "") for tag, attributes in page.tags if tag == "svg"]
    assert any(said in label for label in labels)
    assert not any("$" in a.get("class", "") for _, a in page.tags)


def test_nothing_is_fetched(hostile, tmp_path):
    page, path, _ = page_of([hostile], tmp_path)
    for _, attributes in page.tags:
        assert not {"src", "srcset", "action", "data", "poster", "style"} & set(attributes)
        assert attributes.get("href", "#").startswith("#")
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for _, a in page.tags if "href" in a} <= set(ids)
    assert not re.search(r"url\(|@import|fetch\(|XMLHttp|import\(", style() + script())
    [policy] = [
        a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    for kind, text in (("style-src", style()), ("script-src", script())):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[kind] == f"'sha256-{digest}'"


def test_the_same_results_give_the_same_bytes(tmp_path):
    whole = write_whole(tmp_path / "evaluate-0").path
    first, second = (page_of([whole], tmp_path / name)[1].read_bytes() for name in "ab")
    assert first == second


def test_every_figure_and_table_says_its_n(tmp_path):
    _, path, _ = page_of([write_whole(tmp_path / "evaluate-0").path], tmp_path)
    text = path.read_text()
    figures = re.findall(r"<figure>.*?</figure>", text, re.DOTALL)
    assert len(figures) >= 13
    for figure in figures:
        assert re.search(r'<span class="n">n: [1-9][\d,]* \w', figure), figure[-300:]
    tables = re.findall(r'<table class="cards">.*?</table>\s*</div>\s*(.{40})', text, re.DOTALL)
    assert len(tables) >= 10
    for after in tables:
        assert re.match(r'<p class="n">n: (\d|column)', after)


def test_people_read_names_and_files_hold_ids(tmp_path):
    page, path, result = page_of([write_whole(tmp_path / "evaluate-0").path], tmp_path)
    [head] = [row for row in page.cells if row[:2] == ["System", "harmless Elo"]]
    at = page.cells.index(head)
    names = [row[0] for row in page.cells[at + 1 : at + 4]]
    assert names == ["Helpful-only assistant", "SL-CAI", "RL-CAI"]
    assert not re.search("rl_cai|sl_cai", path.read_text())
    assert [row["name"] for row in json.loads(path.with_suffix(".json").read_text())] == [
        "helpful", "sl_cai", "rl_cai",
    ]  # fmt: skip
    assert comparison_table(result).splitlines()[3].startswith("rl_cai")


def test_sections_come_in_the_order_of_interest_and_without_data_are_left_out(tmp_path, hostile):
    page, _, _ = page_of([write_whole(tmp_path / "evaluate-1").path], tmp_path)
    ids = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert ids == [
        "short", "systems", "samples", "revisions", "labels", "pm", "rl", "judge", "opinions",
        "harmfulness", "persona", "paper", "transcripts", "measures", "settings",
    ]  # fmt: skip
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert links[: len(ids)] == [f"#{name}" for name in ids]
    bare = write_result(tmp_path / "evaluate-2", [system("helpful", "m")]).path
    page, _, _ = page_of([bare], tmp_path)
    ids = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert ids == ["systems", "samples", "measures", "settings"]


def test_cost_and_agreement_of_the_labels_are_shown(tmp_path):
    page, _, _ = page_of([write_whole(tmp_path / "evaluate-0").path], tmp_path)
    assert ["questions asked", "41"] in page.cells
    assert ["tokens read and written", "4321"] in page.cells
    # Principle 0 agrees with 1 on 0.8 and with 2 on 0.6 of the pairs.
    assert ["harm-0", "16", "0", "0.70", "harm-2 (0.60)"] in page.cells
    assert ["harm-3", "16", "3", "", ""] in page.cells


# One set of numbers


@pytest.fixture
def plain(tmp_path):
    metrics = {
        "harmlessness_elo": Metric(120.44, 80.2, 161.9),
        "evasiveness": Metric(0.3449, 0.2, 0.5),
        "entropy": Metric(1.005),
        "unknown_metric": Metric(7.0, 6.0, 8.0),
        "over_refusal": Metric(None),
    }
    matches = [match("rl_cai", "sl_cai", n, 1.0) for n in range(3)]
    systems = [system("sl_cai", "m1", harmlessness_elo=Metric(0.0)),
               system("rl_cai", "m2", **metrics)]  # fmt: skip
    replies = [reply("rl_cai", n, "No.", "evasive") for n in range(3)]
    return write_result(tmp_path / "evaluate-1", systems, matches, replies).path


def test_page_csv_and_json_say_the_same(plain, tmp_path):
    page, path, result = page_of([plain], tmp_path)
    shown = {"SL-CAI": {}, "RL-CAI": {}}
    head = []
    for row in page.cells:
        head = row if row[0] == "System" else head
        if row[0] in shown and head and len(row) == len(head):
            shown[row[0]] |= dict(zip(head, row))
    with path.with_suffix(".csv").open(newline="") as file:
        rows = {row["system"]: row for row in csv.DictReader(file)}
    data = {
        row["name"]: row["metrics"] for row in json.loads(path.with_suffix(".json").read_text())
    }
    assert list(rows) == list(data) == ["sl_cai", "rl_cai"]
    for (name, found), table in zip(data.items(), shown.values()):
        for key, value in found.items():
            for part, column in (("value", key), ("low", f"{key}_low"), ("high", f"{key}_high")):
                text = rows[name][column]
                assert (float(text) if text else None) == value[part]
        for key, (heading, decimals) in {**HEADLINE, **DECLINING, **WRITING, **SCORES}.items():
            numbers = [float(x) for x in re.findall(r"-?[\d.]+", table.get(heading, ""))]
            said = [x for x in found.get(key, {}).values() if x is not None]
            assert sorted(numbers) == pytest.approx(sorted(said), abs=0.51 * 10**-decimals)
    assert shown["RL-CAI"]["harmless Elo"] == "120 [80, 162]"
    assert shown["RL-CAI"]["evasive"] == "0.34 [0.20, 0.50]"
    assert shown["RL-CAI"]["over-refuses"] == shown["SL-CAI"]["evasive"] == ""
    assert "unknown_metric" in rows["rl_cai"]
    lines = comparison_table(result).splitlines()
    assert re.split(r"\s{2,}", lines[2])[:3] == ["rl_cai", "120 [80, 162]", "0.34 [0.20, 0.50]"]


def test_styles_are_shares_of_the_replies(plain, tmp_path):
    _, path, _ = page_of([plain], tmp_path)
    assert "<title>evasive: 100%</title>" in path.read_text()


# Several runs


def star(root, name, player, model, wins, **changes):
    """Return a run in which a player meets SL-CAI on eight prompts."""
    matches = [match(player, "sl_cai", n, float(n < wins)) for n in range(8)]
    systems = [system("sl_cai", "m-sl", harmlessness_elo=Metric(0.0)),
               system(player, model, harmlessness_elo=Metric(999.0))]  # fmt: skip
    return write_result(root / name, systems, matches, **changes).path


def elos(result):
    return {s.id: s.metrics["harmlessness_elo"].value for s in result.systems}


def test_runs_that_share_a_system_are_put_on_one_scale(tmp_path):
    folders = [
        star(tmp_path, "evaluate-a", "rl_cai", "m-a", 6, settings={"feedback.cot": False, "n": 1}),
        star(tmp_path, "evaluate-b", "rl_cai", "m-b", 3, settings={"feedback.cot": True, "n": 1}),
    ]
    page, _, result = page_of(folders, tmp_path)
    names = ["sl_cai", "rl_cai (feedback.cot=False)", "rl_cai (feedback.cot=True)"]
    assert [s.id for s in result.systems] == names
    assert result.systems[1].title == "RL-CAI (chains of thought off)"
    # With half an imagined win each way: 6.5 to 2.5, and 3.5 to 5.5.
    elo = elos(result)
    assert elo[names[0]] == pytest.approx(0)
    assert elo[names[1]] == pytest.approx(400 * math.log10(6.5 / 2.5))
    assert elo[names[2]] == pytest.approx(400 * math.log10(3.5 / 5.5))
    assert any("Elo is relative: SL-CAI stands at 0" in text for text in page.text)
    assert not any(attributes.get("id") == "short" for _, attributes in page.tags)


def test_models_with_equal_settings_keep_apart(tmp_path):
    folders = [
        star(tmp_path, f"evaluate-{m}", "rl_cai", f"m-{m}", wins, settings={"n": n})
        for m, wins, n in (("a", 6, 1), ("b", 3, 1), ("c", 4, 2))
    ]
    names = [s.id for s in collect(folders).systems]
    assert names == ["sl_cai", "rl_cai (n=1, m-a)", "rl_cai (n=1, m-b)", "rl_cai (n=2)"]


def test_runs_that_no_comparison_links_have_no_scale_and_say_so(tmp_path):
    """A judge that gives no scores compared the systems of each run alone."""
    folders = [
        write_result(
            tmp_path / f"evaluate-{name}",
            [system(f"{name}1", f"{name}1", harmlessness_elo=Metric(0.0)),
             system(f"{name}2", f"{name}2", harmlessness_elo=Metric(50.0))],
            [match(f"{name}1", f"{name}2", n, n % 2) for n in range(4)],
        ).path
        for name in "ab"
    ]  # fmt: skip
    page, _, result = page_of(folders, tmp_path)
    said = "The comparisons of the judge don't link all systems here"
    assert any(said in text for text in page.text)
    assert not any("stands at 0" in text for text in page.text)
    assert said in comparison_table(result)
    assert not any("harmlessness_elo" in system.metrics for system in result.systems)


def test_a_run_without_sl_cai_says_what_stands_at_zero(tmp_path):
    elo = {"harmlessness_elo": Metric(0.0)}
    systems = [system("helpful", "m1", **elo), system("helpful_rlhf", "m2", **elo)]
    page, _, _ = page_of([write_result(tmp_path / "evaluate-h", systems).path], tmp_path)
    said = "Elo is relative: Helpful-only assistant stands at 0"
    assert any(said in text for text in page.text)


def test_one_prompt_gives_no_interval_and_valid_json(tmp_path):
    folders = [
        write_result(
            tmp_path / f"evaluate-{name}",
            [system("sl_cai", "m"), system(name, name)],
            [match(name, "sl_cai", 0, 1.0)],
        ).path
        for name in ("x", "y")
    ]
    page, path, _ = page_of(folders, tmp_path)
    data = json.loads(path.with_suffix(".json").read_text(), parse_constant=pytest.fail)
    elo = data[1]["metrics"]["harmlessness_elo"]
    assert (elo["low"], elo["high"]) == (None, None)
    assert elo["value"] == pytest.approx(400 * math.log10(3))  # 1.5 to 0.5
    assert "nan" not in "".join(cell for row in page.cells for cell in row).lower()


def test_a_run_folder_points_to_its_result_and_stages_say_their_seconds(tmp_path):
    stages = [StageRun("feedback", "feedback-0"), StageRun("pm", "pm-0")]
    evaluation = write_result(tmp_path / "evaluate-1", [system("sl_cai", "m")], stages=stages)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "result.json").write_text(json.dumps({"artifact": str(evaluation.path)}))
    (tmp_path / "feedback-0").mkdir()
    (tmp_path / "feedback-0" / "artifact.json").write_text('{"made": {"seconds": 81.7}}')
    page, _, _ = page_of([tmp_path / "run"], tmp_path)
    assert any("Made from feedback-0 (82 s), pm-0." in text for text in page.text)


# The command


def run_command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["cai.report", *map(str, arguments)])
    return command.main()


def test_the_command_prints_the_table_and_the_page(plain, tmp_path, monkeypatch, capsys):
    out = tmp_path / "deep" / "page.html"
    assert run_command(monkeypatch, plain, "--out", out) == 0
    printed = capsys.readouterr().out
    assert "120 [80, 162]" in printed
    assert printed.strip().endswith(str(out))
    assert {path.name for path in out.parent.iterdir()} == {"page.html", "page.csv", "page.json"}


def test_a_folder_without_a_result_is_one_sentence(tmp_path, monkeypatch, capsys):
    assert run_command(monkeypatch, tmp_path) == 1
    said = capsys.readouterr().err
    assert str(tmp_path) in said
    assert "holds no evaluation" in said
    with pytest.raises(UserError):
        collect([tmp_path])


@pytest.mark.parametrize("name", ["summary.json", "replies.jsonl", "upstream/pm.json"])
def test_a_result_of_another_version_is_one_sentence(tmp_path, name):
    folder = write_whole(tmp_path / "evaluate-0").path
    (folder / name).write_text('{"old": 1}\n')
    with pytest.raises(UserError, match=rf"{name}' can't be read .*run stage=evaluate again"):
        collect([folder])


def test_eighteen_runs_are_joined_without_torch_and_without_a_model(tmp_path):
    folders = [
        write_whole(tmp_path / f"evaluate-{n}", n, **{"pm.label_smoothing": n}).path
        for n in range(18)
    ]
    code = (
        "import runpy, sys\n"
        "try:\n    runpy.run_module('cai.report', run_name='__main__')\n"
        "except SystemExit as done:\n    assert done.code == 0\n"
        "print({'torch', 'transformers', 'lightning', 'wandb'} & set(sys.modules))\n"
    )
    out = tmp_path / "r.html"
    command = [sys.executable, "-c", code, *map(str, folders), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
    assert "RL-CAI (pm.label_smoothing=17)" in out.read_text()
