"""The three rules of the store and the pipeline."""

import json
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from filelock import FileLock
from hydra import compose, initialize_config_dir

from cai.composition import CONF, typed
from cai.contracts.table import stages
from cai.errors import UserError
from cai.pipeline.plan import State, plan
from cai.pipeline.stage import RECORD
from cai.pipeline.store import Store, checksums, fingerprint


def config(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return typed(compose("config", overrides=["model=tiny", "tracking=off", *overrides]))


def keys(store, *overrides):
    return {step.stage.name: step.key for step in plan(config(*overrides), store, stages())}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "artifacts")


def make(store, stage="sft", key="a" * 64, text="x"):
    folder = store.partial(stage, key)
    folder.mkdir()
    (folder / "data.txt").write_text(text)
    return store.commit(stage, key, {"settings": {}}, {"seconds": 1})


def test_a_result_is_found_by_its_fingerprint(store):
    assert store.find("sft", "a" * 64) is None
    artifact = make(store)
    assert store.find("sft", "a" * 64) == artifact
    assert not store.partial("sft", "a" * 64).exists()
    assert artifact.record()["files"] == checksums(artifact.path)


def test_what_a_kill_left_half_written_is_no_part_of_a_result(store):
    folder = store.partial("sft", "a" * 64)
    (folder / "model").mkdir(parents=True)
    for name in ("model/.tmp4fDglG", "rows.jsonl.tmp", "rows.jsonl"):
        (folder / name).write_text("")
    artifact = store.commit("sft", "a" * 64, {"settings": {}}, {"seconds": 1})
    assert set(artifact.record()["files"]) == {"rows.jsonl"}
    assert sorted(p.name for p in artifact.path.rglob("*") if p.is_file()) == [
        "artifact.json", "rows.jsonl",
    ]  # fmt: skip


def test_an_unfinished_result_is_not_found(store):
    store.partial("sft", "a" * 64).mkdir()
    assert store.find("sft", "a" * 64) is None


@pytest.mark.parametrize("harm", ["change", "delete", "add", "record"])
def test_a_corrupted_result_is_set_aside_and_said(store, harm, caplog):
    artifact = make(store)
    if harm == "change":
        (artifact.path / "data.txt").write_text("y")
    elif harm == "delete":
        (artifact.path / "data.txt").unlink()
    elif harm == "add":
        (artifact.path / "more.txt").write_text("y")
    else:
        (artifact.path / RECORD).write_text("{")
    assert store.find("sft", "a" * 64) is None
    assert "set aside as sft-aaaaaaaaaaaa.corrupt" in caplog.text
    assert make(store) == store.find("sft", "a" * 64)


def test_a_fingerprint_depends_on_everything_and_on_no_order():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def test_what_is_hashed_and_what_is_not(store):
    base = keys(store)
    how = keys(store, "hardware=cpu", "tracking.project=other", "hardware.micro_tokens=512")
    assert how == base
    for seed, same in (("seed=1", {"helpful", "judge"}), ("data.seed=1", set())):
        other = keys(store, seed)
        assert {name for name in stages() if other[name] == base[name]} == same


def test_a_change_remakes_what_is_downstream_and_reuses_the_rest(store):
    base, changed = keys(store), keys(store, "pm.label_smoothing=0.1")
    different = {name for name in base if base[name] != changed[name]}
    assert different == {"pm", "rl", "evaluate"}


def test_six_arms_need_sixteen_stage_runs_and_not_thirty(store):
    arms = [
        keys(store, "stage=rl", f"feedback.cot={cot}", f"pm.label_smoothing={smoothing}")
        for cot in ("true", "false")
        for smoothing in (0.0, 0.1, 0.2)
    ]
    counted = {(name, key) for arm in arms for name, key in arm.items() if name != "helpful"}
    assert sum(len(arm) - 1 for arm in arms) == 30
    # revise and sft once, feedback twice, pm and rl six times
    assert len(counted) == 16


def test_a_recipe_leaves_out_what_it_does_not_need(store):
    assert set(keys(store, "recipe=helpful_rlhf")) == {"helpful", "pm", "rl", "judge", "evaluate"}
    assert set(keys(store, "recipe=hh_rlhf", "stage=pm")) == {"helpful", "pm"}


def test_a_stage_sees_only_what_it_is_hashed_on(store):
    chosen = config()
    seen = stages()["sft"].read(chosen)
    assert vars(seen) == {name: getattr(chosen, name) for name in ("model", "data", "sft", "seed")}
    [step] = [step for step in plan(chosen, store, stages()) if step.stage.name == "sft"]
    assert step.settings == seen
    assert set(step.recipe["settings"]) == set(vars(seen))


def test_editing_local_data_is_noticed(store, tmp_path, monkeypatch):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.jsonl").write_text("1")
    before = keys(store, f"data.folder={folder}")
    (folder / "a.jsonl").write_text("2")
    after = keys(store, f"data.folder={folder}")
    assert all(before[name] != after[name] for name in ("helpful", "revise", "pm", "rl"))


def test_the_plan_tells_run_resume_and_reuse(store):
    steps = {step.stage.name: step for step in plan(config(), store, stages())}
    assert {step.state for step in steps.values()} == {State.run}
    make(store, "helpful", steps["helpful"].key)
    store.partial("revise", steps["revise"].key).mkdir()
    states = [step.state for step in plan(config("stage=sft"), store, stages())]
    assert states == [State.reuse, State.resume, State.run]


def test_an_unknown_stage_is_named(store):
    with pytest.raises(UserError, match="stage=nope"):
        plan(replace(config(), stage="nope"), store, stages())


def test_outputs_that_cannot_be_written_to(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(UserError, match="can't be written to"):
        Store(blocker / "artifacts")


HOLD = """
import sys, time
from pathlib import Path
from cai.pipeline.store import Store
with Store(Path(sys.argv[1])).lock("sft", "a" * 64):
    print("ready", flush=True)
    time.sleep(1)
"""


def test_who_comes_second_waits_and_says_so(store, caplog):
    caplog.set_level("INFO")
    command = [sys.executable, "-c", HOLD, str(store.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "ready\n"
        started = time.monotonic()
        with store.lock("sft", "a" * 64):
            assert time.monotonic() - started > 0.5
    assert "another run is making it; waiting" in caplog.text


def test_recipes_are_plain_json(store):
    for step in plan(config(), store, stages()):
        assert json.loads(json.dumps(step.recipe)) == step.recipe


def test_who_may_only_read_is_given_what_is_finished_and_makes_nothing(store, monkeypatch):
    make(store, "sft", "a" * 64)

    def refuse(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with store.lock("sft", "a" * 64):
        assert store.find("sft", "a" * 64)
    said = pytest.raises(UserError, match=r"\.lock belongs to somebody else: .* outputs=")
    with said, store.lock("sft", "b" * 64):
        pass


def test_a_lock_is_everybodys(store):
    with store.lock("sft", "a" * 64):
        pass
    [lock] = store.root.glob(".sft-*.lock")
    assert lock.stat().st_mode & 0o777 == 0o666
