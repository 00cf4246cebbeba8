"""The three rules of the store and the pipeline."""

import json
import os
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
from cai.files import open_up, remove, write_text
from cai.parts import LEDGER
from cai.pipeline.mend import mend
from cai.pipeline.plan import State, plan
from cai.pipeline.stage import RECORD, result_name
from cai.pipeline.store import Store, checksums, fingerprint


def config(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return typed(compose("config", overrides=["model=tiny", "tracking=off", *overrides]))


def keys(store, *overrides):
    return {step.stage.name: step.key for step in plan(config(*overrides), store, stages())}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "artifacts")


RECIPE = {"settings": {}}
KEY = fingerprint(RECIPE)


def make(store, stage="sft", recipe=RECIPE, text="x"):
    folder = store.partial(stage, fingerprint(recipe))
    folder.mkdir()
    (folder / "data.txt").write_text(text)
    return store.commit(stage, fingerprint(recipe), recipe, {"seconds": 1})


def test_a_result_is_found_by_its_fingerprint(store):
    assert store.find("sft", KEY) is None
    artifact = make(store)
    assert store.find("sft", KEY) == artifact
    assert not store.partial("sft", KEY).exists()
    assert artifact.record()["files"] == checksums(artifact.path)


def test_what_a_kill_left_half_written_is_no_part_of_a_result(store):
    folder = store.partial("sft", KEY)
    (folder / "model").mkdir(parents=True)
    for name in ("model/.tmp4fDglG", "rows.jsonl.tmp", "rows.jsonl"):
        (folder / name).write_text("")
    artifact = store.commit("sft", KEY, RECIPE, {"seconds": 1})
    assert set(artifact.record()["files"]) == {"rows.jsonl"}
    assert sorted(p.name for p in artifact.path.rglob("*") if p.is_file()) == [
        "artifact.json", "rows.jsonl",
    ]  # fmt: skip


def test_an_unfinished_result_is_not_found(store):
    store.partial("sft", KEY).mkdir()
    assert store.find("sft", KEY) is None


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
    assert store.find("sft", KEY) is None
    assert f"set aside as {artifact.name}.corrupt" in caplog.text
    assert make(store) == store.find("sft", KEY)


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
    make(store, "helpful", steps["helpful"].recipe)
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
with Store(Path(sys.argv[1])).lock("sft", sys.argv[2]):
    print("ready", flush=True)
    time.sleep(1)
"""


def test_who_comes_second_waits_and_says_so(store, caplog):
    caplog.set_level("INFO")
    command = [sys.executable, "-c", HOLD, str(store.root), KEY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "ready\n"
        started = time.monotonic()
        with store.lock("sft", KEY):
            assert time.monotonic() - started > 0.5
    assert "another run is making it; waiting" in caplog.text


def test_recipes_are_plain_json(store):
    for step in plan(config(), store, stages()):
        assert json.loads(json.dumps(step.recipe)) == step.recipe


def test_who_may_only_read_is_given_what_is_finished_and_makes_nothing(store, monkeypatch):
    make(store)

    def refuse(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with store.lock("sft", KEY):
        assert store.find("sft", KEY)
    said = pytest.raises(UserError, match=r"\.lock belongs to somebody else: .* outputs=")
    with said, store.lock("sft", "b" * 64):
        pass


def test_a_lock_is_everybodys(store):
    with store.lock("sft", "a" * 64):
        pass
    [lock] = store.root.glob(".sft-*.lock")
    assert lock.stat().st_mode & 0o777 == 0o666


# Whatever artifact.json is


def edited(change):
    def harm(path):
        record = json.loads(path.read_text())
        change(record)
        path.write_text(json.dumps(record))

    return harm


def a_folder(path):
    path.unlink()
    path.mkdir()


def a_fifo(path):
    path.unlink()
    os.mkfifo(path)


def a_dangling_link(path):
    path.unlink()
    path.symlink_to(path.with_name("nowhere"))


RECORDS = {
    "empty": lambda path: path.write_text(""),
    "cut": lambda path: path.write_text(path.read_text()[:40]),
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "not text": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "null": lambda path: path.write_text("null"),
    "a number": lambda path: path.write_text("3"),
    "a list": lambda path: path.write_text("[]"),
    "an empty object": lambda path: path.write_text("{}"),
    "nested": lambda path: path.write_text("[" * 10**5),
    "a long number": lambda path: path.write_text("1" * 5000),
    "files are a list": edited(lambda record: record.update(files=["data.txt"])),
    "files are numbers": edited(lambda record: record.update(files={"data.txt": 3})),
    "files are null": edited(lambda record: record.update(files=None)),
    "made is null": edited(lambda record: record.update(made=None)),
    "seconds are a text": edited(lambda record: record.update(made={"seconds": "long"})),
    "another stage": edited(lambda record: record.update(stage="pm")),
    "another fingerprint": edited(lambda record: record.update(fingerprint="b" * 64)),
    "another recipe": edited(lambda record: record["recipe"].update(settings={"seed": 1})),
    "no recipe": edited(lambda record: record.pop("recipe")),
    "gone": lambda path: path.unlink(),
    "a folder": a_folder,
    "a fifo": a_fifo,
    "a dangling link": a_dangling_link,
}


@pytest.mark.parametrize("harm", RECORDS)
def test_a_record_that_is_not_as_it_was_written_blocks_nothing(store, harm, caplog):
    artifact = make(store)
    RECORDS[harm](artifact.path / RECORD)
    assert store.find("sft", KEY) is None
    assert f"set aside as {artifact.name}.corrupt" in caplog.text
    assert make(store) == store.find("sft", KEY)


PLACES = {
    "a file": lambda path: path.write_text("x"),
    "a fifo": os.mkfifo,
    "an empty folder": lambda path: path.mkdir(),
    "a dangling link": lambda path: path.symlink_to("nowhere"),
}


@pytest.mark.parametrize("place", PLACES)
def test_what_stands_in_the_place_of_a_result_is_set_aside(store, place):
    path = store.root / result_name("sft", KEY)
    PLACES[place](path)
    assert store.find("sft", KEY) is None
    assert make(store) == store.find("sft", KEY)
    assert os.path.lexists(store.root / f"{path.name}.corrupt")


@pytest.mark.parametrize("place", PLACES)
def test_what_stands_in_the_place_of_a_result_in_the_making_is_set_aside(store, place):
    PLACES[place](store.partial("sft", KEY))
    mend(store.partial("sft", KEY))
    assert {p.name for p in store.partial("sft", KEY).iterdir()} == {LEDGER}


def test_a_file_that_is_none_is_no_part_of_a_result(store):
    artifact = make(store)
    os.mkfifo(artifact.path / "pipe")
    assert store.find("sft", KEY) is None


def test_a_result_that_was_all_done_is_put_in_its_place(store):
    artifact = make(store)
    workspace = store.partial("sft", KEY)
    artifact.path.rename(workspace)
    assert store.find("sft", KEY) is None
    assert store.sealed("sft", KEY) == artifact
    artifact.path.rename(workspace)
    (workspace / "data.txt").write_text("y")
    assert store.sealed("sft", KEY) is None
    assert not (workspace / RECORD).exists()


# What a stopped run has left


@pytest.fixture
def workspace(store):
    folder = store.partial("pm", KEY)
    mend(folder)
    (folder / "model").mkdir()
    (folder / "rows.shards").mkdir()
    for name in ("settings.json", "model/weights", "model/README.md", "rows.shards/0",
                 "rows.shards/1"):  # fmt: skip
        write_text(folder / name, name)
    return folder


def left(workspace):
    files = {p.relative_to(workspace).as_posix() for p in workspace.rglob("*") if p.is_file()}
    return files - {LEDGER}


def empty(path):
    path.write_bytes(b"")


def garbage(path):
    path.write_bytes(b"\xff" * path.stat().st_size)


def gone(path):
    path.unlink()


ALL = {"settings.json", "model/weights", "model/README.md", "rows.shards/0", "rows.shards/1"}


def test_what_is_known_to_be_whole_stays(workspace, caplog):
    (workspace / "half.tmp").write_text("")
    mend(workspace)
    assert left(workspace) == ALL
    assert not caplog.text


@pytest.mark.parametrize("harm", [empty, garbage, gone, a_folder, a_fifo, a_dangling_link])
@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("settings.json", {"settings.json"}),
        ("model/weights", {"model/weights", "model/README.md"}),  # the card says that all is there
        ("rows.shards/0", {"rows.shards/0"}),
    ],
)
def test_a_part_that_is_not_as_it_was_left_is_set_aside(workspace, harm, name, lost, caplog):
    harm(workspace / name)
    mend(workspace)
    assert left(workspace) == ALL - lost
    assert name in caplog.text
    caplog.clear()
    mend(workspace)  # said once
    assert not caplog.text
    for again in lost:
        (workspace / again).parent.mkdir(exist_ok=True)
        write_text(workspace / again, again)
    mend(workspace)
    assert left(workspace) == ALL


def test_a_file_that_nobody_took_down_is_set_aside_alone(workspace):
    (workspace / "model/more").write_text("")
    mend(workspace)
    assert left(workspace) == ALL
    assert (workspace.parent / f"{workspace.name}.corrupt/model/more").exists()


@pytest.mark.parametrize("harm", [empty, garbage, gone, a_folder, a_fifo])
def test_without_its_ledger_nothing_is_trusted(workspace, harm):
    harm(workspace / LEDGER)
    mend(workspace)
    assert left(workspace) == set()


def test_a_ledger_that_was_cut_is_trusted_as_far_as_it_goes(workspace):
    path = workspace / LEDGER
    path.write_bytes(path.read_bytes()[:-60])
    mend(workspace)
    assert left(workspace) >= ALL - {"rows.shards/1"}


def test_what_is_removed_on_purpose_is_not_missed(workspace, caplog):
    remove(workspace / "rows.shards")
    remove(workspace / "settings.json")
    mend(workspace)
    assert not caplog.text
    assert left(workspace) == {"model/weights", "model/README.md"}


def test_the_ledger_is_no_part_of_a_result(store, workspace):
    artifact = store.commit("pm", KEY, RECIPE, {"seconds": 1})
    assert set(artifact.record()["files"]) == ALL
    assert left(artifact.path) == {*ALL, RECORD}
    assert not (artifact.path / LEDGER).exists()


def test_who_may_read_a_result_may_read_its_weights(store, workspace):
    """Libraries write weights for their owner alone."""
    workspace.chmod(0o755)
    (workspace / "model/weights").chmod(0o600)
    artifact = store.commit("pm", KEY, RECIPE, {"seconds": 1})
    assert (artifact.path / "model/weights").stat().st_mode & 0o777 == 0o644
    (store.root / "private").mkdir(mode=0o700)
    (store.root / "private/file").touch(mode=0o600)
    open_up(store.root / "private")
    assert (store.root / "private/file").stat().st_mode & 0o777 == 0o600
