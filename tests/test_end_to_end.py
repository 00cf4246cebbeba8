"""The command as a user types it, on the tiny model: results, reuse, interruption, bad input."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cai.config.choices import TrackingMode
from cai.export import __main__ as export
from cai.parts import LEDGER

STAGES = ("helpful", "revise", "sft", "feedback", "pm", "rl", "judge", "evaluate")
TOUR = ("model=tiny", "scale=tour", "tracking=off", "hardware=cpu", "hardware.threads=1")


def start(outputs, *overrides, **options):
    command = [sys.executable, "-m", "cai", *TOUR, f"outputs={outputs}", *overrides]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )


def run(outputs, *overrides, **options):
    process = start(outputs, *overrides, **options)
    text, _ = process.communicate(timeout=240)
    return process.returncode, text


def checksums(outputs):
    found = {}
    for folder in (Path(outputs) / "artifacts").iterdir():
        if (folder / "artifact.json").exists():
            found[folder.name] = json.loads((folder / "artifact.json").read_text())["files"]
    return found


def only(outputs, pattern):
    (path,) = Path(outputs).glob(pattern)
    return path


@pytest.fixture(scope="module")
def tour(tmp_path_factory):
    outputs = tmp_path_factory.mktemp("tour")
    code, text = run(outputs)
    assert code == 0, text
    return outputs, text


def test_the_tour_makes_every_stage_and_a_report(tour):
    outputs, text = tour
    for stage in STAGES:
        assert re.search(rf"^{stage} +run +[\d,]+ +[\d,]+ +\d", text, re.MULTILINE)
        assert f"{stage}: done in" in text
    assert "an estimate" in text
    assert "Traceback" not in text
    page = only(outputs, "runs/*/report.html").read_text()
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?(?:https?:)?//", page)
    assert "<script src" not in page
    names = {"helpful": "Helpful-only assistant", "sl_cai": "SL-CAI", "rl_cai": "RL-CAI"}
    for system, title in names.items():
        assert title in page
        assert system in text


def test_metrics_are_named_after_their_stage(tour):
    outputs, _ = tour
    rows = [json.loads(s) for s in only(outputs, "runs/*/metrics.jsonl").read_text().splitlines()]
    assert {row["stage"] for row in rows} >= {"sft", "pm", "rl", "evaluate"}
    for row in rows:
        assert all(key.startswith(row["stage"]) for key in row if key != "stage")


def test_a_second_run_reuses_all_and_changes_nothing(tour):
    outputs, _ = tour
    before = checksums(outputs)
    code, text = run(outputs)
    assert code == 0
    assert text.count(": reusing ") == len(STAGES)
    assert ": making " not in text
    assert checksums(outputs) == before


def test_a_run_can_be_taken_away(tour, tmp_path):
    outputs, _ = tour
    folder = min(outputs.glob("runs/*/target.json")).parent
    assert export.main([str(folder), "--system", "rl_cai", "--to", str(tmp_path / "model")]) == 0
    assert export.main([str(folder), "--data", "--to", str(tmp_path / "data")]) == 0
    assert "| on held-out prompts |" in (tmp_path / "model" / "README.md").read_text()
    assert (tmp_path / "data" / "labels" / "train.parquet").is_file()


def test_a_corrupted_result_is_said_set_aside_and_made_again(tour, tmp_path):
    outputs, _ = tour
    shutil.copytree(outputs / "artifacts", tmp_path / "artifacts")
    before = checksums(outputs)
    victim = only(tmp_path, "artifacts/revise-*/revisions.jsonl")
    victim.write_text("junk")
    code, text = run(tmp_path, "stage=sft")
    assert code == 0
    assert "checksum mismatch of revisions.jsonl" in text
    assert only(tmp_path, "artifacts/revise-*.corrupt").is_dir()
    after = checksums(tmp_path)
    name = victim.parent.name
    assert after[name] == before[name]


def begun(outputs, stage):
    """List what a stage has written so far, beside its ledger."""
    return [p for p in outputs.glob(f"artifacts/{stage}-*.partial/*") if p.name != LEDGER]


@pytest.mark.parametrize("stage", ["helpful", "revise", "feedback", "rl"])
def test_a_run_killed_in_a_stage_ends_with_the_same_checksums(tour, tmp_path, stage):
    outputs, _ = tour
    shutil.copytree(outputs / "artifacts", tmp_path / "artifacts")
    for later in STAGES[STAGES.index(stage) :]:
        shutil.rmtree(only(tmp_path, f"artifacts/{later}-*"))
    process = start(tmp_path)
    deadline = time.monotonic() + 60
    while not begun(tmp_path, stage) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert begun(tmp_path, stage), "killed too late to show anything"
    code, text = run(tmp_path)
    assert code == 0, text
    assert f"{stage}: resuming" in text
    assert checksums(tmp_path) == checksums(outputs)


def test_control_c_says_how_to_go_on(tmp_path):
    process = start(tmp_path)
    while not list(tmp_path.glob("artifacts/helpful-*.partial")):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on where this one stopped" in text
    assert "Traceback" not in text


def test_two_runs_at_once_share_the_work(tmp_path):
    first, second = start(tmp_path, "stage=revise"), start(tmp_path, "stage=revise")
    texts = [process.communicate(timeout=240)[0] for process in (first, second)]
    assert first.returncode == second.returncode == 0
    assert sum(text.count(": making ") for text in texts) == 2
    assert any("another run is making it; waiting" in text for text in texts)


def own_data(tmp_path):
    folder = tmp_path / "own"
    shutil.copytree(Path(__file__).parents[1] / "cai/data/builtin", folder)
    return [f"data.folder={folder}"]


def bad_row(tmp_path):
    arguments = own_data(tmp_path)
    path = tmp_path / "own/red_team.jsonl"
    path.write_text(path.read_text() + '{"id": "x", "kind": \n')
    return arguments, ["red_team.jsonl", str(len(path.read_text().splitlines()))]


def empty_set(tmp_path):
    arguments = own_data(tmp_path)
    (tmp_path / "own/red_team.jsonl").write_text("")
    return arguments, ["own has no red_team records"]


def missing_folder(tmp_path):
    return [f"data.folder={tmp_path}/none"], ["none"]


def long_prompt(tmp_path):
    arguments = own_data(tmp_path)
    rows = [
        {"id": f"{n}", "kind": "x", "messages": [{"role": "user", "content": f"{n} " * 5000}]}
        for n in range(40)
    ]
    (tmp_path / "own/red_team.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return arguments, ["red_team rows fits model.context=8192"]


def no_tokenizer(tmp_path):
    from cai.lm.tiny import tiny_model

    tiny_model(256).save_pretrained(tmp_path / "model")
    return ["model=folder", f"model.path={tmp_path}/model"], ["tokenizer", "model"]


def no_model(tmp_path):
    return ["model=folder", f"model.path={tmp_path}/none"], ["none"]


def read_only(tmp_path):
    return ["outputs=/proc/nothing"], ["outputs=/proc/nothing", "folder that you may write"]


def bad_constitution(tmp_path):
    return ["constitution=nothing"], ["constitution=nothing", "default"]


CASES = [
    bad_row, empty_set, missing_folder, long_prompt, no_tokenizer, no_model, read_only,
    bad_constitution,
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_bad_input_is_one_sentence(tmp_path, case):
    arguments, said = case(tmp_path)
    code, text = run(tmp_path / "outputs", "stage=revise", *arguments)
    assert code == 1, text
    last = text.strip().splitlines()[-1]
    for part in said:
        assert part in last, text
    assert "Traceback" not in text
    assert not list(tmp_path.glob("outputs/artifacts/revise-*/artifact.json"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_said(tmp_path):
    # The metrics file is the first thing that a stage appends to.
    code, text = run(tmp_path, "stage=helpful", f"hydra.run.dir={tmp_path}/job")
    assert code == 0
    (tmp_path / "job/metrics.jsonl").unlink()
    Path(tmp_path / "job/metrics.jsonl").symlink_to("/dev/full")
    shutil.rmtree(only(tmp_path, "artifacts/helpful-*"))
    code, text = run(tmp_path, "stage=helpful", f"hydra.run.dir={tmp_path}/job")
    assert code == 1
    assert "the disk is full" in text
    assert "Traceback" not in text


def test_tracking_modes_are_the_groups_options():
    conf = Path(__file__).parents[1] / "conf/tracking"
    assert {mode.value for mode in TrackingMode} == {path.stem for path in conf.glob("*.yaml")}
