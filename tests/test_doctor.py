"""The doctor names what is finished, unfinished, damaged and held, and prunes nothing else."""

import json
import pathlib
import subprocess
import sys

import pytest

from cai import doctor
from cai.errors import UserError
from cai.files import write_json, write_text
from cai.pipeline.inventory import Condition, deletable, inventory, needs_of
from cai.pipeline.mend import mend
from cai.pipeline.stage import NEEDS, RECORD, result_name
from cai.pipeline.store import Store, fingerprint


def make(store, stage, seed=0, **inputs):
    recipe = {"stage": stage, "settings": {"seed": seed}, "inputs": inputs}
    key = fingerprint(recipe)
    mend(store.partial(stage, key))
    write_text(store.partial(stage, key) / "rows.jsonl", f"{stage}\n" * 1000)
    return store.commit(stage, key, recipe, {"seconds": 1.0})


@pytest.fixture
def outputs(tmp_path):
    """Two chains of two results with a run each, something damaged, something unfinished."""
    store = Store(tmp_path / "artifacts")
    for seed, name in enumerate(("first", "second")):
        one = make(store, "helpful", seed)
        two = make(store, "revise", seed, helpful=one.fingerprint)
        folder = tmp_path / "runs" / name
        (folder / ".hydra").mkdir(parents=True)
        if seed == 0:
            write_json(folder / NEEDS, [one.name, two.name])
        else:  # of a version that did not say
            write_json(folder / "result.json", {"artifact": str(two.path)})
    (make(store, "pm").path / "rows.jsonl").write_text("y\n")
    mend(store.partial("rl", "c" * 64))
    write_text(store.partial("rl", "c" * 64) / "rows.jsonl", "x\n")
    (store.root / "sft-0123456789ab.corrupt").mkdir()
    (store.root / "sft-0123456789ab.corrupt" / "rows.jsonl").write_text("z\n")
    return tmp_path


def conditions(outputs):
    found = {}
    for item in inventory(outputs / "artifacts"):
        found.setdefault(item.condition, []).append(item.path.name.partition("-")[0])
    return found


def test_everything_is_what_it_is(outputs):
    assert conditions(outputs) == {
        Condition.finished: ["helpful", "helpful", "revise", "revise"],
        Condition.damaged: ["pm"],
        Condition.unfinished: ["rl"],
        Condition.aside: ["sft"],
    }


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"fingerprint": 3}', '{"a": {}}'])
def test_a_record_of_another_shape_is_damage(outputs, content):
    for path in (outputs / "artifacts").glob("helpful-*"):
        (path / RECORD).write_text(content)
    assert conditions(outputs)[Condition.damaged] == ["helpful", "helpful", "pm"]


def test_what_of_an_unfinished_result_is_made_again_is_said(outputs, capsys):
    [folder] = (outputs / "artifacts").glob("rl-*.partial")
    (folder / "rows.jsonl").write_text("")
    assert doctor.main([str(outputs)]) == 1
    said = capsys.readouterr()
    assert "rows.jsonl is damaged" in said.out
    assert "checksum mismatch of rows.jsonl" in said.err
    assert (folder / "rows.jsonl").exists(), "looking changes nothing"


def test_a_folder_in_place_of_a_record_is_said(outputs, capsys):
    [record] = (outputs / "artifacts").glob(f"pm-*/{RECORD}")
    record.unlink()
    record.mkdir()
    assert doctor.main([str(outputs)]) == 1
    assert f"its {RECORD} is no file" in capsys.readouterr().out


HOLD = """
import sys, time
from pathlib import Path
from cai.pipeline.store import Store
with Store(Path(sys.argv[1])).lock("rl", "c" * 64):
    print("ready", flush=True)
    time.sleep(60)
"""


def test_who_makes_something_is_named_and_keeps_it(outputs, capsys):
    words = [sys.executable, "-c", HOLD, str(outputs / "artifacts")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "ready\n"
        doctor.main([str(outputs), "--prune", str(outputs / "runs" / "first")])
        other.kill()
    assert "being made by" in capsys.readouterr().out
    if pathlib.Path("/proc/locks").exists():
        [item] = [i for i in inventory(outputs / "artifacts") if i.path.name.startswith("rl")]
        assert item.holder is None
    assert list((outputs / "artifacts").glob("rl-*.partial"))


def test_pruning_alone_deletes_what_is_of_no_use(outputs, capsys):
    doctor.main([str(outputs), "--prune"])
    assert "deleted 2" in capsys.readouterr().out
    assert conditions(outputs) == {
        Condition.finished: ["helpful", "helpful", "revise", "revise"],
        Condition.unfinished: ["rl"],
    }


@pytest.mark.parametrize("name", ["first", "second"])
def test_what_a_named_run_needs_is_kept(outputs, name):
    run = outputs / "runs" / name
    needed = needs_of(run, outputs / "artifacts")
    assert {n.partition("-")[0] for n in needed} == {"helpful", "revise"}
    doctor.main([str(outputs), "--prune", str(run)])
    left = {item.path.name for item in inventory(outputs / "artifacts")}
    assert left == needed


def test_a_whole_folder_of_runs_can_be_named(outputs):
    found = needs_of(outputs / "runs", outputs / "artifacts")
    items = inventory(outputs / "artifacts")
    gone = deletable(items, found)
    assert {item.condition for item in gone} == {
        Condition.damaged, Condition.aside, Condition.unfinished,
    }  # fmt: skip


def test_a_run_that_does_not_say_what_it_needs_prunes_nothing(outputs, capsys):
    (outputs / "runs/third/.hydra").mkdir(parents=True)
    before = sorted((outputs / "artifacts").rglob("*"))
    for name, said in (("third", "does not say which results"), ("none", "is no folder of a run")):
        assert doctor.main([str(outputs), "--prune", str(outputs / "runs" / name)]) == 1
        assert said in capsys.readouterr().err
    assert sorted((outputs / "artifacts").rglob("*")) == before
    with pytest.raises(UserError):
        needs_of(outputs / "runs/none", outputs / "artifacts")


def test_an_installation_is_described(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CAI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert doctor.main([str(tmp_path / "none")]) == 0
    said = capsys.readouterr().out
    for words in ("python 3.", "torch ", "wandb ", "processor: ", "without the embedded model",
                  "has no results yet", "free on the disk", "an account is set up"):  # fmt: skip
        assert words in said
    assert "k" * 40 not in said


def test_the_name_of_a_result_is_that_of_its_fingerprint(outputs):
    for item in inventory(outputs / "artifacts"):
        if item.condition is Condition.finished:
            record = json.loads((item.path / RECORD).read_text())
            assert item.result == result_name(record["stage"], record["fingerprint"])
