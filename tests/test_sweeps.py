"""Every arm of every sweep composes, differs in what the sweep asks about, and shares the rest."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from cai import sweep
from cai.artifacts import Store
from cai.composition import CONF
from cai.pipeline import plan

ROOT = Path(__file__).resolve().parents[1]
SWEEPS = ROOT / "sweeps"
WANDB = SWEEPS / "wandb_cot_label_smoothing.yaml"
SEARCH = SWEEPS / "search.yaml"
NAMES = sorted(path.stem for path in SWEEPS.glob("*.yaml") if path not in (WANDB, SEARCH))
TOUR = ("model=tiny", "scale=tour", "tracking=off", "hardware=cpu")

VARIES = {
    "cot_label_smoothing": (
        lambda c: (c.feedback.cot, c.pm.label_smoothing),
        {(cot, smoothing) for cot in (True, False) for smoothing in (0.0, 0.1, 0.2)},
    ),
    "label_kind": (lambda c: c.feedback.label.value, {"hard", "soft", "clamped"}),
    "revisions": (lambda c: (c.sft.up_to_round, c.revise.rounds), {(n, 4) for n in (1, 2, 3, 4)}),
    "principles": (lambda c: c.constitution.n_principles, {1, 2, 4, 8, 16}),
    "critique": (lambda c: c.revise.critique, {True, False}),
    "mixture": (
        lambda c: (c.pm.mixture.helpful, c.pm.mixture.harmless),
        {(0.8, 0.2), (0.5, 0.5), (0.2, 0.8)},
    ),
    "constitutions": (lambda c: c.constitution.name, {"default", "single", "strict", "plural"}),
    "kl": (lambda c: c.rl.kl.coefficient, {0.0, 0.005, 0.02, 0.1}),
    "paper": (
        lambda c: (c.recipe.name, c.recipe.labels.value, c.recipe.start.value, c.feedback.cot),
        {
            ("helpful_rlhf", "none", "helpful", False),
            ("hh_rlhf", "human", "helpful", False),
            ("rl_cai", "ai", "sft", False),
            ("rl_cai_cot", "ai", "sft", True),
        },
    ),
}
"""Of each sweep: what its arms differ in, and every value of it."""

SHARED = {
    "cot_label_smoothing": (42, 23),
    "label_kind": (21, 15),
    "revisions": (28, 22),
    "principles": (35, 35),
    "critique": (14, 13),
    "mixture": (21, 13),
    "constitutions": (28, 28),
    "kl": (28, 13),
    "paper": (22, 17),
}
"""Of each sweep: stage runs that the arms need, and how many of them are different."""


def arms(name, outputs, *overrides):
    """Compose a sweep as the command does, and every arm as its job would."""
    given = [f"hydra.searchpath=[file://{CONF}]", f"outputs={outputs}", *overrides]
    with initialize_config_dir(str(SWEEPS), version_base="1.3"):
        config = compose(name, overrides=given, return_hydra_config=True)
        return [sweep.compose_arm(config, arm) for arm in sweep.arms(config)]


def test_every_sweep_is_looked_at():
    assert NAMES == sorted(VARIES) == sorted(SHARED)


@pytest.mark.parametrize("name", NAMES)
def test_arms_differ_in_what_the_sweep_asks_about_and_share_the_rest(name, tmp_path):
    configs = arms(name, tmp_path)
    varies, expected = VARIES[name]
    assert len(configs) == len(expected)
    assert {varies(config) for config in configs} == expected
    assert {config.tracking.group for config in configs} == {name}
    shared = sweep.share(configs)
    assert (shared.needed.total(), shared.distinct.total()) == SHARED[name]
    assert shared.made.total() == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_sweep_says_its_question_and_its_command(name):
    question, command = (SWEEPS / f"{name}.yaml").read_text().splitlines()[:2]
    assert question.startswith("# ")
    assert command == f"# python -m cai --config-dir sweeps --config-name {name}"


def test_chains_of_thought_and_label_smoothing_need_16_of_30_runs_of_the_method(tmp_path):
    """One revise and sft, two feedbacks, six pm and rl: the least there can be."""
    shared = sweep.share(arms("cot_label_smoothing", tmp_path, "scale=laptop"))
    method = ("revise", "sft", "feedback", "pm", "rl")
    assert sum(shared.needed[stage] for stage in method) == 30
    assert [shared.distinct[stage] for stage in method] == [1, 1, 2, 6, 6]


def test_what_is_there_already_is_counted(tmp_path):
    configs = arms("kl", tmp_path)
    store = Store(tmp_path / "artifacts")
    first = plan(configs[0], store)[0]
    store.partial(first.stage.name, first.key).mkdir()
    store.commit(first.stage.name, first.key, first.recipe, {})
    text = sweep.share(configs).describe()
    assert text.startswith(
        "sweep of 4 arms: 13 stage runs instead of 28; sharing saves 15, and 1 are there already\n"
    )
    assert re.search(r"^helpful +4 +1 +1$", text, re.MULTILINE)
    assert re.search(r"^rl +4 +4 +0$", text, re.MULTILINE)


def test_overrides_of_the_command_reach_every_arm(tmp_path):
    configs = arms("kl", tmp_path, "seed=7", "rl.kl.coefficient=0.5")
    assert [config.seed for config in configs] == [7]
    assert [config.rl.kl.coefficient for config in configs] == [0.5]


def test_an_arm_is_named_by_what_tells_it_from_others():
    words = ["pm.label_smoothing=0.1", "outputs=/x", "tracking=off", "+hardware.threads=2", "a=b"]
    assert sweep.label(words) == "pm.label_smoothing=0.1 a=b"


def test_the_wandb_sweep_asks_for_the_same_arms(tmp_path):
    """Expand the grid with W&B's own code and compose what its agent would start."""
    from itertools import product

    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    settings = yaml.safe_load(WANDB.read_text())
    assert settings["command"][1:4] == ["python", "-m", "cai"]
    keys, nodes = zip(*settings["parameters"].items())
    grid = [
        create_sweep_command_args({"args": {k: {"value": v} for k, v in zip(keys, values)}})
        for values in product(*(node["values"] for node in nodes))
    ]
    fixed = [word for word in settings["command"][4:] if "$" not in word]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        from cai.composition import typed

        configs = [
            typed(compose("config", overrides=[*fixed, *arm["args_no_hyphens"]])) for arm in grid
        ]
    varies, expected = VARIES["cot_label_smoothing"]
    assert {varies(config) for config in configs} == expected
    assert {config.tracking.mode.value for config in configs} == {"online"}


def start(outputs, *words, **options):
    command = [sys.executable, "-m", "cai", *words, *TOUR, f"outputs={outputs}"]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )


def run(outputs, *words):
    process = start(outputs, *words)
    text, _ = process.communicate(timeout=280)
    return process.returncode, text


def made(outputs, stage):
    return [p for p in Path(outputs).glob(f"artifacts/{stage}-*") if (p / "artifact.json").exists()]


def test_a_failed_arm_is_named_and_does_not_lose_the_others(tmp_path):
    words = ("-m", "stage=helpful", "helpful.examples=4,-1,8", "helpful.optimizer.epochs=0.1")
    code, text = run(tmp_path, *words)
    assert code == 1
    assert "sweep of 2 arms: 2 stage runs instead of 2" in text
    assert len(made(tmp_path, "helpful")) == 2
    assert text.count("helpful: done in") == 2
    last = text.strip().splitlines()[-1]
    assert last.startswith("failed: stage=helpful helpful.examples=-1 ")
    assert "helpful.examples=-1 must be at least 0" in last
    assert "no arm reached stage=evaluate" in text
    assert "Traceback" not in text


def test_an_arm_that_crashes_leaves_its_error_and_the_sweep_ends(tmp_path, monkeypatch):
    """An error that is nobody's mistake: the module of a stage does not import."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text(
        "import sys, types\n"
        "if 'crash' in sys.argv[-1]:\n"
        "    sys.modules['cai.stages.helpful'] = types.ModuleType('cai.stages.helpful')\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{broken}{os.pathsep}{ROOT}")
    code, text = run(tmp_path / "crash", "-m", "stage=helpful", "seed=1,2")
    assert code == 1
    for seed in (1, 2):
        assert f"failed: stage=helpful seed={seed} model=tiny scale=tour: AttributeError: " in text
    logs = list(tmp_path.glob("crash/sweeps/*/*/__main__.log"))
    assert len(logs) == 2
    assert all("Traceback" in log.read_text() for log in logs)


def test_a_sweep_that_was_interrupted_goes_on(tmp_path):
    words = ("-m", "stage=helpful", "seed=1,2")
    process = start(tmp_path, *words)
    deadline = time.monotonic() + 120
    while not made(tmp_path, "helpful") and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    code, text = run(tmp_path, *words)
    assert code == 0, text
    assert re.search(r"2 stage runs instead of 2; sharing saves 0, and [12] are there", text)
    assert len(made(tmp_path, "helpful")) == 2


LAUNCHERS = {"joblib": "joblib", "submitit": "submitit", "ray": "ray"}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_arms_at_the_same_time_share_upstream_stages(launcher, tmp_path):
    """Two processes want the same helpful assistant: one makes it and the other waits."""
    pytest.importorskip(f"hydra_plugins.hydra_{LAUNCHERS[launcher]}_launcher")
    words = ("--config-dir", str(SWEEPS), "-m", f"+launch={launcher}", "stage=revise")
    code, text = run(tmp_path, *words, "revise.rounds=1,2,-1")
    assert code == 1
    assert [len(made(tmp_path, stage)) for stage in ("helpful", "revise")] == [1, 2]
    logs = [path.read_text() for path in sorted(tmp_path.glob("sweeps/*/*/__main__.log"))]
    assert sum(log.count("helpful: making") for log in logs) == 1
    assert sum(log.count("revise: making") for log in logs) == 2
    assert sum(log.count("helpful: reusing") for log in logs) == 1
    assert "failed: stage=revise revise.rounds=-1 " in text


def test_a_search_tries_what_it_was_told_and_writes_a_report(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    words = ("--config-dir", str(SWEEPS), "--config-name", "search", "hydra.sweeper.n_trials=2")
    code, text = run(tmp_path, *words)
    assert code == 0, text
    assert "arms are chosen as results come in" in text
    [folder] = tmp_path.glob("sweeps/*")
    assert (folder / "report.html").exists()
    found = OmegaConf.load(folder / "optimization_results.yaml")
    assert 1 <= len(found.solutions) <= 2
    assert len(found.solutions[0]["values"]) == 3
    assert [len(made(tmp_path, stage)) for stage in ("pm", "rl")] == [1, 2]


@pytest.mark.parametrize("word", ["+launch=joblib", "+launch=slurm", "+launch=ray"])
def test_a_launcher_that_is_not_installed_is_said_in_a_sentence(word, tmp_path):
    extra = {"slurm": "submitit"}.get(word.split("=")[1], word.split("=")[1])
    try:
        __import__(f"hydra_plugins.hydra_{extra}_launcher")
    except ImportError:
        code, text = run(tmp_path, "--config-dir", str(SWEEPS), "--config-name", "kl", word)
        assert code == 1
        assert text.strip() == (
            f"the launcher {extra} is not installed: pip install 'constitutional-ai[{extra}]'"
        )
    else:
        pytest.skip("it is installed")


def test_the_sweeps_pages_hold_every_arm(tmp_path):
    code, text = run(tmp_path, "-m", "pm.label_smoothing=0.0,0.2", "rl.iterations=1")
    assert code == 0, text
    [folder] = tmp_path.glob("sweeps/*")
    assert f"report of the sweep: {folder / 'report.html'}" in text
    page = (folder / "report.html").read_text()
    for arm in ("rl_cai (pm.label_smoothing=0.0)", "rl_cai (pm.label_smoothing=0.2)"):
        assert arm in page
        assert arm in text
    results = [json.loads(path.read_text()) for path in folder.glob("*/result.json")]
    assert len({result["artifact"] for result in results}) == 2
    assert [len(made(tmp_path, stage)) for stage in ("sft", "feedback", "pm")] == [1, 1, 2]
