"""The rows of a run in the columns that trainers read, and what their card says."""

import json
import re
from dataclasses import replace

import pytest
import yaml
from datasets import disable_progress_bars, load_dataset
from export.finished import ASKED, BETTER, PLAIN, WORSE, config, finish, result_of

from cai.contracts.preferences import Labels
from cai.export.__main__ import main
from cai.files import sha256_of, write_text

disable_progress_bars()

USER = {"role": "user", "content": ASKED[0].text}


def said(text):
    return {"role": "assistant", "content": text}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return finish(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def data(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("taken") / "data"
    assert main([str(run), "--data", "--to", str(folder)]) == 0
    return folder


def rows_of(data, name):
    return [json.loads(line) for line in (data / name / "train.jsonl").read_text().splitlines()]


def header(data):
    return yaml.safe_load((data / "README.md").read_text().split("---")[1])


def test_every_set_loads_by_name_and_is_its_jsonl(data, tmp_path):
    names = [c["config_name"] for c in header(data)["configs"]]
    assert set(names) == {path.name for path in data.iterdir() if path.is_dir()}
    assert {"gate", "revisions", "helpful_answers", "labels", "preferences", "transcripts",
            "replies", "matches"} == set(names)  # fmt: skip
    for name in names:
        loaded = load_dataset(str(data), name, split="train", cache_dir=str(tmp_path))
        assert [dict(row) for row in loaded] == rows_of(data, name)


def test_another_export_into_a_folder_of_the_same_name_is_read_itself(tmp_path):
    """The library keeps what it loaded by the folder's name and the card."""
    found = []
    for number, n_pairs in enumerate((1, 2)):
        place = tmp_path / str(number)
        run = finish(place, stage="feedback")
        rows = Labels("feedback", "", result_of(run, "feedback")).comparisons
        rows.write([replace(rows.read()[0], id=f"pair-{k}") for k in range(n_pairs)])
        record = result_of(run, "feedback") / "artifact.json"
        values = json.loads(record.read_text())
        values["files"][rows.path.name] = sha256_of(rows.path)
        record.write_text(json.dumps(values))
        assert main([str(run), "--data", "--to", str(place / "data")]) == 0
        loaded = load_dataset(
            str(place / "data"), "labels", split="train", cache_dir=str(tmp_path / "kept")
        )
        found.append([row["id"] for row in loaded])
    assert found == [["pair-0"], ["pair-0", "pair-1"]]


def test_revisions_are_dialogues_with_what_they_were_made_by(data):
    [row] = rows_of(data, "revisions")
    principle = config().constitution.revision[1]
    assert row["messages"] == [USER, said(BETTER)]
    assert (row["round"], row["before"], row["critique"]) == (2, WORSE, "It still harms.")
    assert row["principle"] == principle.id
    assert row["principle_text"] == f"{principle.critique} {principle.revision}"


def test_labels_are_pairs_with_the_soft_label_and_the_principle(data):
    row, *others = rows_of(data, "labels")
    assert len(others) == 4
    principle = config().constitution.comparison[0]
    assert row["prompt"] == [USER]
    assert (row["chosen"], row["rejected"]) == ([said(BETTER)], [said(WORSE)])
    assert row["probability"] == 0.8
    assert (row["principles"], row["principle_texts"]) == ([principle.id], [principle.text])


def test_what_preference_models_learnt_says_whose_and_of_what(data):
    found = {(row["model"], row["source"]) for row in rows_of(data, "preferences")}
    assert found == {(m, s) for m in ("pm", "twin") for s in ("harmless", "helpful")}


def test_answers_stand_behind_their_prompts(data):
    """An id that the data do not have any more is left out."""
    [row] = rows_of(data, "helpful_answers")
    assert [turn["role"] for turn in row["messages"]] == ["user", "assistant"]
    assert row["messages"][-1] == said("Gladly.")
    assert rows_of(data, "gate")[0]["messages"] == [USER, said(PLAIN)]
    assert rows_of(data, "replies")[0]["messages"] == [USER, said(BETTER)]


def test_the_card_counts_its_rows_and_keeps_paths_to_itself(run, data):
    text = (data / "README.md").read_text()
    for name, n in re.findall(r"^\| `(\w+)` \| (\d+) \|", text, re.MULTILINE):
        assert len(rows_of(data, name)) == int(n)
    assert str(run.parents[1]) not in text
    assert "ask for harm" in text
    for stage in ("revise", "feedback", "pm"):
        key = json.loads((result_of(run, stage) / "artifact.json").read_text())["fingerprint"]
        assert key in text


def test_a_run_that_stopped_early_gives_what_it_has(tmp_path):
    run = finish(tmp_path, stage="feedback")
    folder = tmp_path / "data"
    assert main([str(run), "--data", "--to", str(folder)]) == 0
    assert {path.name for path in folder.iterdir()} == {
        "README.md", "gate", "revisions", "helpful_answers", "labels"}  # fmt: skip


def test_rows_that_were_changed_are_not_passed_on(tmp_path, capsys):
    run = finish(tmp_path, stage="revise")
    [rows] = result_of(run, "revise").glob("revisions.jsonl")
    write_text(rows, rows.read_text().replace("key", "brick"))
    assert main([str(result_of(run, "revise")), "--data", "--to", str(tmp_path / "data")]) == 1
    assert "has changed since it was made" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()
