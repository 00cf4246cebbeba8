"""What the tracker writes, read back from the file that W&B would sync."""

import json
import logging
import os
import signal
import time
from pathlib import Path

import pytest
import wandb
from wandb_file import offline_runs

from cai.config import TrackingConfig, TrackingMode
from cai.errors import UserError
from cai.pipeline.execute import _version
from cai.pipeline.store import Store
from cai.tracking import Mirror, Tracker, track

SECRET = "5e" * 20
SETTINGS = {"pm": {"label_smoothing": 0.1}, "seed": 3}


def tracking(mode=TrackingMode.offline, **changes):
    values = {"project": "p", "entity": None, "group": "a_sweep", "tags": ["feedback.cot=True"],
              "code": True, "system": True}  # fmt: skip
    return TrackingConfig(mode=mode, **{**values, **changes})


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    for name in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)


def finished(store, stage, key, inputs):
    """Make a result by hand."""
    workspace = store.partial(stage, key)
    workspace.mkdir()
    (workspace / "model").mkdir()
    (workspace / "model" / "weights.bin").write_bytes(b"weights of " + stage.encode())
    recipe = {"stage": stage, "inputs": inputs, "content": {"data": "d" * 64}, "settings": SETTINGS}
    return store.commit(stage, key, recipe, {"seconds": 1.0})


@pytest.fixture
def offline(tmp_path):
    store = Store(tmp_path / "artifacts")
    sft = finished(store, "sft", "a" * 64, {})
    folder = tmp_path / "job"
    with track(tracking(), "pm", folder, SETTINGS) as tracker:
        tracker.metrics({"loss": 0.5, "accuracy": 0.75}, 0)
        tracker.metrics({"loss": float("inf"), "accuracy": 1.0}, 10)
        tracker.table("replies", [{"text": "ä <b>", "score": 1.5, "messages": [{"a": 1}]}], 10)
        pm = finished(store, "pm", "b" * 64, {"sft": "a" * 64})
        tracker.artifact(_version(pm), [_version(sft)])
    [run] = offline_runs(folder)
    return run, folder, pm


def test_an_offline_run_says_what_it_is(offline):
    run, _, _ = offline
    assert (run.run.project, run.run.run_group, run.run.job_type) == ("p", "a_sweep", "pm")
    assert list(run.run.tags) == ["feedback.cot=True"]
    assert run.run.display_name == "pm feedback.cot=True"
    assert {key: run.config[key] for key in SETTINGS} == SETTINGS
    assert run.exit.exit_code == 0


def test_metrics_are_drawn_over_the_stages_own_step(offline):
    run, _, _ = offline
    [metric] = run.metrics
    assert (metric.glob_name, metric.step_metric) == ("pm/*", "pm/step")
    rows = [{k: v for k, v in row.items() if k[0] != "_"} for row in run.history[:2]]
    assert rows == [
        {"pm/step": 0, "pm/loss": 0.5, "pm/accuracy": 0.75},
        {"pm/step": 10, "pm/loss": None, "pm/accuracy": 1.0},
    ]


def test_the_mirror_holds_what_metrics_jsonl_holds(offline):
    run, folder, _ = offline
    written = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    mirrored = [{k: v for k, v in row.items() if k[0] != "_"} for row in run.history[:2]]
    assert [{"stage": "pm", **row} for row in mirrored] == written


def test_a_table_arrives_with_its_text(offline):
    run, _, _ = offline
    table = run.table("pm/replies")
    assert table["columns"] == ["text", "score", "messages"]
    assert table["data"] == [["ä <b>", 1.5, '[{"a": 1}]']]
    [row] = [row for row in run.history if "pm/replies/_type" in row]
    assert row["pm/step"] == 10


def test_an_artifact_names_what_it_was_made_from_and_is_not_copied(offline):
    run, _, pm = offline
    [artifact] = [a for a in run.artifacts if a.type == "pm"]
    assert artifact.name == pm.name == "pm-" + "b" * 12
    assert json.loads(artifact.metadata) == {
        "stage": "pm",
        "fingerprint": "b" * 64,
        "inputs": ["sft-" + "a" * 12],
        "content": {"data": "d" * 64},
    }
    files = {entry.path: Path(entry.local_path) for entry in artifact.manifest.contents}
    assert files == {name: pm.path / name for name in ("artifact.json", "model/weights.bin")}


def test_a_large_file_stays_here(tmp_path, monkeypatch):
    monkeypatch.setattr("cai.tracking.LARGEST_FILE", 5)
    store = Store(tmp_path / "artifacts")
    with track(tracking(), "pm", tmp_path / "job", SETTINGS) as tracker:
        tracker.artifact(_version(finished(store, "pm", "b" * 64, {})), [])
    [run] = offline_runs(tmp_path / "job")
    [artifact] = run.artifacts
    found = {entry.path: entry.ref for entry in artifact.manifest.contents}
    assert set(found) == {"artifact.json", "model/weights.bin"}
    assert all(ref.startswith("file://") for ref in found.values())


def test_no_secret_is_written(offline, tmp_path):
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


def test_off_writes_metrics_and_nothing_else(tmp_path):
    with track(tracking(TrackingMode.off), "pm", tmp_path / "job", SETTINGS) as tracker:
        tracker.metrics({"loss": 0.5}, 0)
        tracker.table("replies", [{"text": "a"}])
    assert [path.name for path in (tmp_path / "job").rglob("*")] == ["metrics.jsonl"]
    assert not (tmp_path / "elsewhere").exists()


def test_a_stage_that_fails_leaves_a_failed_run(tmp_path):
    with pytest.raises(ZeroDivisionError), track(tracking(), "pm", tmp_path, SETTINGS):
        _ = 1 / 0
    [run] = offline_runs(tmp_path)
    assert run.exit.exit_code == 1


def test_an_agents_run_takes_every_stage(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "arm7")
    wandb.teardown()  # it has read its environment already
    for stage in ("pm", "rl"):
        with track(tracking(), stage, tmp_path / stage, SETTINGS) as tracker:
            tracker.metrics({"loss": 0.5}, 0)
    assert [run.run.run_id for run in offline_runs(tmp_path)] == ["arm7", "arm7"]


class Breaking:
    """A run whose connection goes at the second call."""

    def __init__(self, error):
        self.error, self.calls = error, 0

    def log(self, row):
        self.calls += 1
        if self.calls == 2:
            raise self.error


@pytest.mark.parametrize(
    "error", [OSError("no space"), wandb.errors.CommError("gone"), ConnectionResetError("reset")]
)
def test_a_mirror_that_breaks_is_said_once_and_the_run_goes_on(tmp_path, caplog, error):
    run = Breaking(error)
    tracker = Tracker("pm", tmp_path, Mirror(run))
    with caplog.at_level(logging.WARNING):
        for step in range(4):
            tracker.metrics({"loss": float(step)}, step)
    assert run.calls == 2
    assert len(caplog.records) == 1
    assert "metrics.jsonl is complete" in caplog.text
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 4


def core_processes():
    """Return W&B's helper processes below this one."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, rest = path.read_text().rsplit(")", 1)
        except OSError:
            continue
        if int(rest.split()[1]) == os.getpid() and "wandb-core" in name:
            found.append(int(path.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc on this system")
def test_a_run_survives_the_death_of_wandbs_process(tmp_path, caplog):
    store = Store(tmp_path / "artifacts")
    with (
        caplog.at_level(logging.WARNING),
        track(tracking(), "pm", tmp_path / "job", SETTINGS) as tracker,
    ):
        tracker.metrics({"loss": 0.0}, 0)
        [core] = core_processes()
        os.kill(core, signal.SIGKILL)
        time.sleep(0.2)
        for step in range(1, 4):
            tracker.metrics({"loss": float(step)}, step)
        tracker.table("replies", [{"text": "a"}])
        tracker.artifact(_version(finished(store, "pm", "b" * 64, {})), [])
    assert len((tmp_path / "job/metrics.jsonl").read_text().splitlines()) == 4
    assert caplog.text.count("W&B failed") == 1
    with track(tracking(), "rl", tmp_path / "next", SETTINGS) as tracker:
        tracker.metrics({"loss": 1.0}, 0)
    [run] = offline_runs(tmp_path / "next")
    assert run.history[0]["rl/loss"] == 1.0


def test_a_mirror_that_cannot_start_says_what_to_do(tmp_path, monkeypatch):
    def refuse(**_):
        raise wandb.errors.UsageError("No API key configured.\nUse `wandb login`")

    monkeypatch.setattr(wandb, "init", refuse)
    with (
        pytest.raises(UserError) as caught,
        track(tracking(TrackingMode.online), "pm", tmp_path, SETTINGS),
    ):
        pass
    assert str(caught.value) == (
        "tracking.mode=online: W&B could not start (No API key configured); log in with "
        "'wandb login', or use tracking=offline or tracking=off"
    )


@pytest.mark.parametrize("error", [KeyError("getpwuid(): uid not found: 23456"), OSError(30, "ro")])
def test_offline_nobody_asked_for_a_mirror_so_a_run_goes_on_without(
    tmp_path, monkeypatch, caplog, error
):
    def refuse(**_):
        raise error

    monkeypatch.setattr(wandb, "init", refuse)
    with track(tracking(TrackingMode.offline), "pm", tmp_path, SETTINGS) as tracker:
        tracker.metrics({"loss": 1.0}, 3)
        tracker.table("rows", [{"a": 1}])
    assert "W&B could not start" in caplog.text
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["pm/loss"] == 1.0


@pytest.mark.parametrize("given", [{}, {"HOME": "/home/somebody"}])
def test_without_a_home_the_log_of_wandbs_process_has_a_place(tmp_path, monkeypatch, given):
    """Where it has none it tells the terminal all that it does."""
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    seen = []

    def refuse(**settings):
        seen.append(os.environ.get("XDG_CACHE_HOME"))
        raise wandb.errors.UsageError("not today")

    monkeypatch.setattr(wandb, "init", refuse)
    with track(tracking(), "pm", tmp_path, SETTINGS):
        pass
    assert seen == [None if given else str(tmp_path / "wandb" / "cache")]
    assert "XDG_CACHE_HOME" not in os.environ
