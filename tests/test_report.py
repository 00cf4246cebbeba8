"""The report: hostile texts stay texts, nothing is fetched, and all its numbers agree."""

import base64
import csv
import hashlib
import json
import math
import re
import sys
from html.parser import HTMLParser

import pytest

from cai.errors import UserError
from cai.report import __main__ as command
from cai.report import collect, comparison_table, write_report
from cai.report.page import SCRIPT, STYLE
from cai.report.plots import Series, plot
from cai.report.tables import COLUMNS, MORE

EVIL = (
    "</div></section></style></script><script>alert('1')</script>"
    "<img src=http://evil.example/x onerror=\"alert('2')\">\"'&amp;&lt; <!-- ]]> \u2028 "
    "<svg/onload=x>"
)


def metric(value, low=None, high=None):
    return {"value": value, "low": low, "high": high}


def system(name, model, **metrics):
    return {"name": name, "model": model, "metrics": metrics}


def match(first, second, prompt, outcome, judge="twin", axis="harmlessness"):
    return {"judge": judge, "axis": axis, "prompt_id": f"p{prompt}",
            "first": first, "second": second, "outcome": outcome}  # fmt: skip


def reply(name, prompt, text, style="compliance"):
    return {"system": name, "set": "red_team", "prompt_id": f"p{prompt}", "kind": "law",
            "sample": 0, "messages": [{"role": "user", "content": "How?"}], "response": text,
            "style": style, "refusal": False, "evasive": False, "boilerplate": False,
            "pm_score": 0.0, "twin_score": 0.0}  # fmt: skip


def result_folder(root, name, systems, matches=(), replies=(), **summary):
    folder = root / name
    (folder / "upstream").mkdir(parents=True)
    settings = summary.pop("settings", {"seed": 0})
    whole = {"recipe": "rl_cai", "settings": settings, "departures": [], "notes": [], "stages": [],
             **summary, "systems": systems}  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(whole))
    for file, rows in (("replies", replies), ("matches", matches)):
        (folder / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def hostile(tmp_path):
    """Return a result in which every text that a model, a user or a file may set is hostile."""
    folder = result_folder(
        tmp_path,
        "evaluate-0",
        [system(EVIL, EVIL, evasiveness=metric(0.5)), system("sl_cai", "m", kl=metric(0.0))],
        replies=[
            {**reply(name, 0, EVIL, EVIL), "kind": EVIL,
             "messages": [{"role": "user", "content": EVIL}]}
            for name in (EVIL, "sl_cai")
        ],
        recipe=EVIL,
        settings={EVIL: EVIL},
        departures=[EVIL],
        notes=[EVIL],
        stages=[{"stage": EVIL, "artifact": EVIL}],
    )  # fmt: skip
    step = {"round": 1, "principle": EVIL, "critique": EVIL, "revision": EVIL, "faults": [EVIL]}
    row = {"prompt_id": EVIL, "messages": [{"role": EVIL, "content": EVIL}], "response": EVIL}
    bins = [{"n": 1, "confidence": 0.6, "frequency": 0.5}]
    source = {"name": EVIL, "n": 1, "loss": 0.5, "accuracy": 1.0, "longer_wins": 0.5, "ece": 0.1}
    upstream = {
        "revise": {
            "yield": [{"round": 1, "fault": EVIL, "rows": 1, "of": 1}],
            "pm_by_round": [{"round": 0, "harmless": 0.1, "low": 0.0, "high": 0.2}],
            "transcripts": [{**row, "rounds": [step]}],
        },
        "feedback": {
            "labels": 1,
            "principles": [{"id": EVIL, "n": 1, "flips": 0, "flipped": []}],
            "agreement": {"ids": [EVIL], "matrix": [[1.0]]},
            "reliability": bins,
            "cost": {"questions": 41, "tokens": 4321},
        },
        "pm": {"sources": [source], "reliability": bins, "twin": {"sources": [source]}},
    }
    for name, data in upstream.items():
        (folder / "upstream" / f"{name}.json").write_text(json.dumps(data))
    history = [{"step": n, "score": 0.1 * n, "sqrt_kl": 0.2 * n} for n in range(3)]
    (folder / "upstream" / "rl.jsonl").write_text("".join(json.dumps(r) + "\n" for r in history))
    return folder


class Page(HTMLParser):
    """What a browser would see: tags with attributes, and text outside of style and script."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.inside, self.code = [], [], [], {}
        self.cells, self.row = [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside.append(tag)
        if tag == "tr":
            self.cells.append([])
        elif tag in {"td", "th"}:
            self.cells[-1].append("")

    def handle_endtag(self, tag):
        if tag in self.inside:
            while self.inside.pop() != tag:
                pass

    def handle_data(self, data):
        where = self.inside[-1] if self.inside else ""
        if where in {"style", "script"}:
            self.code[where] = self.code.get(where, "") + data
        elif where in {"td", "th"}:
            self.cells[-1][-1] += data
        else:
            self.text.append(data)


def page_of(folders, tmp_path):
    result = collect(folders)
    path = write_report(result, tmp_path / "out" / "report.html")
    return Page(path.read_text(encoding="utf-8")), path, result


def test_hostile_texts_stay_texts(hostile, tmp_path):
    page, path, _ = page_of([hostile], tmp_path)
    names = {tag for tag, _ in page.tags}
    assert names <= {
        "html", "head", "meta", "title", "style", "script", "body", "h1", "h2", "h3", "section",
        "div", "p", "span", "table", "thead", "tbody", "tr", "th", "td", "figure", "figcaption",
        "svg", "line", "path", "polyline", "circle", "rect", "text", "ul", "li", "details",
        "summary", "em",
    }  # fmt: skip
    assert page.code == {"style": STYLE, "script": SCRIPT}
    assert [tag for tag, _ in page.tags].count("script") == 1
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for value in attributes.values():
            assert "alert" not in (value or "")
            assert "evil" not in (value or "")
    whole = "".join(page.text)
    # Title, heading, notes, departures, artifact, replies, styles, legends, prompts, transcript.
    assert whole.count(EVIL) >= 14
    cells = [cell for row in page.cells for cell in row]
    assert cells.count(EVIL) >= 7
    assert "<!--" not in path.read_text().replace("&lt;!--", "")


def test_nothing_is_fetched(hostile, tmp_path):
    page, path, _ = page_of([hostile], tmp_path)
    for _, attributes in page.tags:
        assert not {"src", "href", "srcset", "action", "data", "poster", "style"} & set(attributes)
    assert not re.search(r"url\(|@import|fetch\(|XMLHttp|import\(", STYLE + SCRIPT)
    [policy] = [
        a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    for kind, text in (("style-src", STYLE), ("script-src", SCRIPT)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[kind] == f"'sha256-{digest}'"


def test_cost_of_the_labels_is_shown(hostile, tmp_path):
    page, _, _ = page_of([hostile], tmp_path)
    assert ["questions asked", "41"] in page.cells
    assert ["tokens read and written", "4321"] in page.cells


# One set of numbers


@pytest.fixture
def plain(tmp_path):
    metrics = {
        "harmlessness_elo": metric(120.44, 80.2, 161.9),
        "evasiveness": metric(0.3449, 0.2, 0.5),
        "entropy": metric(1.005),
        "unknown_metric": metric(7.0, 6.0, 8.0),
        "over_refusal": metric(None),
    }
    matches = [match("rl_cai", "sl_cai", n, 1.0) for n in range(3)]
    systems = [system("sl_cai", "m1", harmlessness_elo=metric(0.0)),
               system("rl_cai", "m2", **metrics)]  # fmt: skip
    replies = [reply("rl_cai", n, "No.", "evasive") for n in range(3)]
    return result_folder(tmp_path, "evaluate-1", systems, matches, replies)


def test_page_csv_and_json_say_the_same(plain, tmp_path):
    page, path, result = page_of([plain], tmp_path)
    [head] = [row for row in page.cells if row[:2] == ["system", "harmless Elo"]]
    table = {row[0]: dict(zip(head, row)) for row in page.cells if row[0] in {"sl_cai", "rl_cai"}}
    with path.with_suffix(".csv").open(newline="") as file:
        rows = {row["system"]: row for row in csv.DictReader(file)}
    data = {
        row["name"]: row["metrics"] for row in json.loads(path.with_suffix(".json").read_text())
    }
    assert list(rows) == list(data) == list(table) == ["sl_cai", "rl_cai"]
    for name, found in data.items():
        for key, value in found.items():
            for part, column in (("value", key), ("low", f"{key}_low"), ("high", f"{key}_high")):
                text = rows[name][column]
                assert (float(text) if text else None) == value[part]
        for key, (heading, decimals) in {**COLUMNS, **MORE}.items():
            numbers = [float(x) for x in re.findall(r"-?[\d.]+", table[name][heading])]
            said = [x for x in found.get(key, metric(None)).values() if x is not None]
            assert numbers == pytest.approx(said, abs=0.51 * 10**-decimals)
    assert table["rl_cai"]["harmless Elo"] == "120 [80, 162]"
    assert table["rl_cai"]["evasive"] == "0.34 [0.20, 0.50]"
    assert table["rl_cai"]["over-refuses"] == table["sl_cai"]["evasive"] == ""
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
    systems = [system("sl_cai", "m-sl", harmlessness_elo=metric(0.0)),
               system(player, model, harmlessness_elo=metric(999.0))]  # fmt: skip
    return result_folder(root, name, systems, matches, **changes)


def test_runs_that_share_a_system_are_put_on_one_scale(tmp_path):
    folders = [
        star(tmp_path, "evaluate-a", "rl_cai", "m-a", 6, settings={"feedback.cot": False, "n": 1}),
        star(tmp_path, "evaluate-b", "rl_cai", "m-b", 3, settings={"feedback.cot": True, "n": 1}),
    ]
    page, _, result = page_of(folders, tmp_path)
    names = ["sl_cai", "rl_cai (feedback.cot=False)", "rl_cai (feedback.cot=True)"]
    assert [s["name"] for s in result.systems] == names
    # With half an imagined win each way: 6.5 to 2.5, and 3.5 to 5.5.
    elo = {s["name"]: s["metrics"]["harmlessness_elo"]["value"] for s in result.systems}
    assert elo[names[0]] == pytest.approx(0)
    assert elo[names[1]] == pytest.approx(400 * math.log10(6.5 / 2.5))
    assert elo[names[2]] == pytest.approx(400 * math.log10(3.5 / 5.5))
    assert any("Elo is relative: sl_cai stands at 0" in text for text in page.text)
    assert not result.own_scales


def test_models_with_equal_settings_keep_apart(tmp_path):
    folders = [
        star(tmp_path, f"evaluate-{m}", "rl_cai", f"m-{m}", wins, settings={"n": n})
        for m, wins, n in (("a", 6, 1), ("b", 3, 1), ("c", 4, 2))
    ]
    names = [s["name"] for s in collect(folders).systems]
    assert names == ["sl_cai", "rl_cai (n=1, m-a)", "rl_cai (n=1, m-b)", "rl_cai (n=2)"]


def test_runs_that_share_no_system_keep_their_scales_and_say_so(tmp_path):
    folders = [
        result_folder(
            tmp_path,
            f"evaluate-{name}",
            [system(f"{name}1", f"{name}1", harmlessness_elo=metric(0.0)),
             system(f"{name}2", f"{name}2", harmlessness_elo=metric(50.0))],
            [match(f"{name}1", f"{name}2", n, n % 2) for n in range(4)],
        )
        for name in "ab"
    ]  # fmt: skip
    page, _, result = page_of(folders, tmp_path)
    said = "These runs share no system, so there is no scale for all of them"
    assert any(said in text for text in page.text)
    assert not any("stands at 0" in text for text in page.text)
    assert said in comparison_table(result)
    assert [s["metrics"]["harmlessness_elo"]["value"] for s in result.systems] == [0, 50, 0, 50]


def test_a_run_without_sl_cai_says_what_stands_at_zero(tmp_path):
    folder = result_folder(
        tmp_path, "evaluate-h", [system("helpful", "m1"), system("helpful_rlhf", "m2")]
    )
    page, _, _ = page_of([folder], tmp_path)
    assert any("Elo is relative: helpful stands at 0" in text for text in page.text)


def test_one_prompt_gives_no_interval_and_valid_json(tmp_path):
    folders = [
        result_folder(
            tmp_path,
            f"evaluate-{name}",
            [system("sl_cai", "m"), system(name, name)],
            [match(name, "sl_cai", 0, 1.0)],
        )
        for name in ("x", "y")
    ]
    page, path, _ = page_of(folders, tmp_path)
    data = json.loads(path.with_suffix(".json").read_text(), parse_constant=pytest.fail)
    elo = data[1]["metrics"]["harmlessness_elo"]
    assert (elo["low"], elo["high"]) == (None, None)
    assert elo["value"] == pytest.approx(400 * math.log10(3))  # 1.5 to 0.5
    assert "nan" not in "".join(cell for row in page.cells for cell in row).lower()


def test_a_run_folder_points_to_its_result_and_stages_say_their_seconds(plain, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "result.json").write_text(json.dumps({"artifact": str(plain)}))
    summary = json.loads((plain / "summary.json").read_text())
    summary["stages"] = [{"stage": n, "artifact": f"{n}-0"} for n in ("feedback", "pm")]
    (plain / "summary.json").write_text(json.dumps(summary))
    (tmp_path / "feedback-0").mkdir()
    (tmp_path / "feedback-0" / "artifact.json").write_text('{"made": {"seconds": 81.7}}')
    page, _, _ = page_of([run], tmp_path)
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


# Plots


def test_intervals_stay_with_their_points():
    whole = plot([Series("s", [0, 1], [5.0, 1.0], [4.0, 0.5], [6.0, 1.5])], "x", "y")
    part = plot([Series("s", [0, 1], [None, 1.0], [4.0, 0.5], [6.0, 1.5])], "x", "y")
    lines = re.compile(r'<line class="s0" x1="([\d.]+)" y1="([\d.]+)" x2="\1" y2="([\d.]+)"')
    assert lines.findall(part) == lines.findall(whole)[1:]
    assert part.count("<circle") == 1
    assert plot([Series("s", [0], [math.nan])], "x", "y") == "<p>No numbers.</p>"


def test_labels_of_plots_are_escaped():
    drawn = plot([Series(EVIL, [0, 1], [1, 2])], EVIL, EVIL)
    assert EVIL not in drawn
    assert {tag for tag, _ in Page(drawn).tags} <= {
        "svg", "path", "line", "text", "polyline", "circle", "p", "span",
    }  # fmt: skip
