"""Every arm of every sweep composes, differs in what the sweep asks about, and shares the rest."""

import importlib.util
import io
import json
import re
import shutil
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from wandb_file import offline_runs

from cai import sweep
from cai.composition import CONF, typed
from cai.contracts.table import stages
from cai.dashboard import SECTIONS, Kind
from cai.pipeline.plan import plan
from cai.pipeline.store import Store
from cai.report import collect

ROOT = Path(__file__).resolve().parents[1]
SWEEPS = ROOT / "sweeps"
WANDB = SWEEPS / "wandb_cot_label_smoothing.yaml"
NAMES = sorted(p.stem for p in (SWEEPS / "sweep").glob("*.yaml") if p.stem != "search")
TOUR = ("model=tiny", "scale=tour", "tracking=off", "hardware=cpu")

SHORT = ("rl.iterations=1", "rl.watch.evaluate_every=1")

VARIES = {
    "cot_label_smoothing": (
        lambda c: (c.feedback.cot, c.pm.label_smoothing),
        {(cot, smoothing) for cot in (True, False) for smoothing in (0.0, 0.1, 0.2)},
    ),
    "label_kind": (lambda c: c.feedback.label.kind.value, {"hard", "soft", "clamped"}),
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
    "cot_label_smoothing": (96, 46),
    "label_kind": (48, 30),
    "revisions": (64, 44),
    "principles": (80, 62),
    "critique": (32, 26),
    "mixture": (48, 26),
    "constitutions": (64, 50),
    "kl": (64, 26),
    "paper": (52, 34),
}
"""Of each sweep: stage runs that the arms need, and how many of them are different."""


def arms(name, outputs, *overrides):
    """Compose a sweep as the command does, and every arm as its job would."""
    given = [f"+sweep={name}", f"outputs={outputs}", *overrides]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=given, return_hydra_config=True)
        return [sweep.compose_arm(config, arm) for arm in sweep.arms(config)]


def test_every_sweep_is_looked_at():
    assert NAMES == sorted(VARIES) == sorted(SHARED)


@pytest.mark.parametrize("name", NAMES)
def test_arms_differ_in_what_the_sweep_asks_about_and_share_the_rest(name, tmp_path):
    configs = arms(name, tmp_path)
    varies, expected = VARIES[name]
    assert len(configs) == 2 * len(expected)
    assert {config.seed for config in configs} == {0, 1}
    assert {varies(config) for config in configs} == expected
    assert {config.tracking.group for config in configs} == {name}
    assert all(config.experiment.question for config in configs)
    shared = sweep.share(configs)
    assert (shared.needed.total(), shared.distinct.total()) == SHARED[name]
    assert shared.made.total() == 0
    assert shared.distinct["helpful"] == shared.distinct["judge"] == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_sweep_says_its_question_and_its_command(name):
    package, question, command = (SWEEPS / "sweep" / f"{name}.yaml").read_text().splitlines()[:3]
    assert package == "# @package _global_"
    assert question.startswith("# ")
    assert command == f"# python -m cai +sweep={name}"


def test_chains_of_thought_and_label_smoothing_need_16_of_30_runs_of_the_method(tmp_path):
    """One revise and sft, two feedbacks, six pm and rl for each seed: the least there can be."""
    shared = sweep.share(arms("cot_label_smoothing", tmp_path, "scale=laptop", "seed=0"))
    method = ("revise", "sft", "feedback", "pm", "rl")
    assert sum(shared.needed[stage] for stage in method) == 30
    assert [shared.distinct[stage] for stage in method] == [1, 1, 2, 6, 6]


def test_what_is_there_already_is_counted(tmp_path):
    configs = arms("kl", tmp_path, "seed=0")
    store = Store(tmp_path / "artifacts")
    first = plan(configs[0], store, stages())[0]
    store.partial(first.stage.name, first.key).mkdir()
    store.commit(first.stage.name, first.key, first.recipe, {})
    text = sweep.share(configs).describe()
    assert text.startswith(
        "sweep of 4 arms: 14 stage runs instead of 32; sharing saves 18, and 1 are there already\n"
    )
    assert re.search(r"^helpful +4 +1 +1$", text, re.MULTILINE)
    assert re.search(r"^rl +4 +4 +0$", text, re.MULTILINE)


def test_overrides_of_the_command_reach_every_arm(tmp_path):
    configs = arms("kl", tmp_path, "seed=7", "rl.kl.coefficient=0.5")
    assert [config.seed for config in configs] == [7]
    assert [config.rl.kl.coefficient for config in configs] == [0.5]


def test_an_arm_is_named_by_what_tells_it_from_others():
    words = [
        "pm.label_smoothing=0.1",
        "outputs=/x",
        "tracking=off",
        "+hardware.threads=2",
        "+sweep=kl",
        "a=b",
    ]
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
        configs = [
            typed(compose("config", overrides=[*fixed, *arm["args_no_hyphens"]])) for arm in grid
        ]
    varies, expected = VARIES["cot_label_smoothing"]
    assert {varies(config) for config in configs} == expected
    assert {config.tracking.mode.value for config in configs} == {"online"}


OTHER_POLICY = re.compile("evaluate/(rl_cai_cot|dpo_cai|hh_rlhf|helpful_rlhf)/")


def start(outputs, *words):
    command = [sys.executable, "-m", "cai", *words, *TOUR, f"outputs={outputs}"]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def run(outputs, *words):
    process = start(outputs, *words)
    text, _ = process.communicate(timeout=280)
    return process.returncode, text


def made(outputs, stage):
    return [p for p in Path(outputs).glob(f"artifacts/{stage}-*") if (p / "artifact.json").exists()]


@pytest.fixture(scope="module")
def four_arms(tmp_path_factory):
    """Two arms that work, one whose setting is wrong and one that crashes, in this process."""
    from cai import __main__ as program
    from cai.stages import pm

    outputs = tmp_path_factory.mktemp("sweep")
    right = pm.run

    def crash(settings, *rest):
        if settings.pm.label_smoothing == 0.3:
            raise ZeroDivisionError("nobody's mistake\nsecond line")
        right(settings, *rest)

    words = ["-m", "pm.label_smoothing=0.0,0.7,0.3,0.2", *SHORT]
    text = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(text), redirect_stderr(text):
        patch.setattr(pm, "run", crash)
        patch.setattr(sweep, "failures", [])
        for name in ("DATA", "CACHE", "CONFIG"):
            patch.setenv(f"WANDB_{name}_DIR", str(outputs / "wandb"))
        argv = ["cai", *words, *TOUR, "tracking=offline", "tracking.group=four", "hydra.job.name=x"]
        patch.setattr(sys, "argv", [*argv, f"outputs={outputs}"])
        code = program.main()
    [folder] = outputs.glob("sweeps/*")
    return code, text.getvalue(), outputs, folder


def test_the_start_says_what_is_saved_and_which_arm_cannot_run(four_arms):
    _, text, _, _ = four_arms
    head = text[: text.index("Launching")]
    wrong = "pm.label_smoothing=0.7 rl.iterations=1 rl.watch.evaluate_every=1 model=tiny scale=tour"
    assert f"{wrong} can't run: " in head
    assert "sweep of 3 arms: 14 stage runs instead of 24; sharing saves 10, and 0 are" in head


def test_a_failed_arm_is_named_and_does_not_lose_the_others(four_arms):
    code, text, outputs, _ = four_arms
    assert code == 1
    wrong, crashed = text.strip().splitlines()[-2:]
    assert wrong.startswith("failed: pm.label_smoothing=0.7 ")
    assert "it must be in [0, 0.5)" in wrong
    assert crashed.startswith("failed: pm.label_smoothing=0.3 ")
    assert crashed.endswith(": ZeroDivisionError: nobody's mistake")
    counts = {stage: len(made(outputs, stage)) for stage in ("sft", "feedback", "pm", "rl")}
    assert counts == {"sft": 1, "feedback": 1, "pm": 2, "rl": 2}


def test_only_a_crash_leaves_a_traceback_and_only_in_its_log(four_arms):
    _, _, _, folder = four_arms
    logs = {path.parent.name: path.read_text() for path in folder.glob("*/x.log")}
    assert {arm for arm, log in logs.items() if "Traceback" in log} == {"2"}


def test_one_page_holds_the_arms_that_worked(four_arms):
    _, text, _, folder = four_arms
    assert f"report of the sweep: {folder / 'report.html'}" in text
    page = (folder / "report.html").read_text()
    for arm in ("(pm.label_smoothing=0.0)", "(pm.label_smoothing=0.2)"):
        assert f"RL-CAI {arm.replace('pm.label_smoothing=', 'label smoothing ')}" in page
        assert f"rl_cai {arm}" in text
    assert "0.7" not in page.split("<script>")[0].split("pm.label_smoothing=")[-1][:4]


def test_the_tracker_knows_the_sweep_the_arm_and_all_settings_so_far(four_arms):
    """What W&B would get, read back: one run per stage and arm, in one group."""
    _, _, _, folder = four_arms
    runs = {arm: offline_runs(folder / arm) for arm in ("0", "1", "2", "3")}
    kinds = {arm: sorted(run.run.job_type for run in runs[arm]) for arm in runs}
    later = ["evaluate", "pm", "rl"]
    assert kinds == {
        "0": sorted(["helpful", "revise", "sft", "feedback", "judge", *later]),
        "1": [], "2": ["pm"], "3": later,
    }  # fmt: skip
    everything = [run for arm in runs.values() for run in arm]
    assert {run.run.run_group for run in everything} == {"four"}
    assert [run.exit.exit_code for run in runs["2"]] == [1]
    policy = next(run for run in runs["3"] if run.run.job_type == "rl")
    assert "pm.label_smoothing=0.2" in list(policy.run.tags)
    assert policy.run.display_name.startswith("rl pm.label_smoothing=0.2 ")
    assert policy.config["pm"]["label_smoothing"] == 0.2
    assert policy.config["feedback"]["cot"] is False
    assert policy.config["arm"].startswith("pm.label_smoothing=0.2 ")
    assert "evaluate" not in policy.config


def test_dashboards_draw_what_is_logged(four_arms):
    """Every panel of this recipe has its numbers; other recipes log the same of their policy."""
    _, _, _, folder = four_arms
    logged = {key for run in offline_runs(folder) for row in run.history for key in row}
    for section in SECTIONS:
        for panel in section.panels:
            names = [name for name in (*panel.metrics, panel.x) if name and "/" in name]
            if panel.kind is Kind.table:
                names = [f"{name}/_type" for name in names]
            for name in names:
                assert OTHER_POLICY.sub("evaluate/rl_cai/", name) in logged, name


def test_a_search_would_be_told_the_policys_scores(four_arms):
    _, _, _, folder = four_arms
    found = sweep.objectives(folder / "0")
    artifact = Path(json.loads((folder / "0/result.json").read_text())["artifact"])
    systems = json.loads((artifact / "summary.json").read_text())["systems"]
    [policy] = [system["metrics"] for system in systems if system["name"] == "rl_cai"]
    names = ("harmlessness_elo", "helpfulness_elo", "evasiveness")
    assert found == tuple(policy[name]["value"] for name in names)
    assert sweep.objectives(folder / "1") is None


def test_runs_that_share_no_system_are_compared_by_the_judge_they_share(four_arms, tmp_path):
    """The same replies by other models: both copies of a system are equally good."""
    _, _, _, folder = four_arms
    first = Path(json.loads((folder / "0/result.json").read_text())["artifact"])
    second = tmp_path / "evaluate-other"
    shutil.copytree(first, second)
    for name in ("summary.json", "artifact.json"):
        text = (second / name).read_text()
        (second / name).write_text(re.sub(r"(helpful|sft|rl)-[0-9a-f]{12}", r"\1-other", text))
    result = collect([first, second])
    assert len(result.systems) == 6
    elo = {}
    for system in result.systems:
        elo.setdefault(system.name, []).append(system.metrics["harmlessness_elo"].value)
    for one, other in elo.values():
        assert one == pytest.approx(other, abs=1e-6)


def test_a_dry_run_says_the_plan_of_every_arm_and_makes_nothing(tmp_path):
    code, text = run(tmp_path, "-m", "stage=sft", "sft.epochs=1,2", "dry_run=true")
    assert code == 0, text
    plans = re.findall(r"^sft +run +\d+ +[\d,]+ +[\d.]+ +([\d.]+)$", text, re.M)
    assert len(plans) == 2, text
    assert all(float(gib) > 0 for gib in plans)
    assert "4 stage runs instead of 6" in text
    assert "making" not in text and "report" not in text and "compare" not in text
    assert not list(tmp_path.glob("artifacts/*"))


def test_a_dry_run_refuses_what_does_not_fit_in_memory(tmp_path):
    code, text = run(tmp_path, "stage=sft", "hardware.micro_tokens=100000000", "dry_run=true")
    assert code == 1
    assert re.search(r"^stage \w+ needs about [\d.]+ GiB on each device, and there are", text, re.M)


def test_running_a_sweep_again_makes_only_what_is_missing(four_arms):
    """The shared stages, and three for each arm that worked, are there; the crashed arm's not."""
    _, _, outputs, _ = four_arms
    words = [*SHORT, *TOUR, f"outputs={outputs}"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        configs = [
            typed(compose("config", overrides=[f"pm.label_smoothing={value}", *words]))
            for value in (0.0, 0.3, 0.2)
        ]
    shared = sweep.share(configs)
    assert (shared.distinct.total(), shared.made.total()) == (5 + 3 * 3, 5 + 3 * 2)


def installed(plugin):
    try:
        return bool(importlib.util.find_spec(f"hydra_plugins.{plugin}"))
    except ModuleNotFoundError:  # there is no plugin at all
        return False


@pytest.mark.parametrize("launcher", ["joblib", "submitit", "ray"])
def test_arms_at_the_same_time_wait_for_a_shared_stage_and_make_it_once(launcher, tmp_path):
    """Two processes want the helpful assistant while this one holds its lock."""
    if not installed(f"hydra_{launcher}_launcher"):
        pytest.skip("it is not installed")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = typed(compose("config", overrides=[*TOUR, "stage=helpful"]))
    store = Store(tmp_path / "artifacts")
    [shared] = plan(config, store, stages())
    words = ["-m", f"+launch={launcher}", "stage=revise"]
    with store.lock("helpful", shared.key):
        process = start(tmp_path, *words, "revise.rounds=1,2,-1")
        deadline = time.monotonic() + 200
        while waiting(tmp_path) < 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        held = waiting(tmp_path)
    text, _ = process.communicate(timeout=200)
    assert held == 2, text
    assert process.returncode == 1
    assert [len(made(tmp_path, stage)) for stage in ("helpful", "revise")] == [1, 2]
    logs = "".join(path.read_text() for path in tmp_path.glob("sweeps/*/*/__main__.log"))
    said = ("helpful: making", "helpful: reusing", "revise: making")
    assert [logs.count(words) for words in said] == [1, 1, 2]
    assert (
        "failed: stage=revise revise.rounds=-1 model=tiny scale=tour: revise.rounds=-1 is" in text
    )


def waiting(outputs):
    logs = [path.read_text() for path in outputs.glob("sweeps/*/*/__main__.log")]
    return sum("helpful: another run is making it; waiting" in log for log in logs)


def test_a_search_tries_what_it_was_told_and_writes_a_report(tmp_path):
    if not installed("hydra_optuna_sweeper"):
        pytest.skip("it is not installed")
    words = ("+sweep=search", "hydra.sweeper.n_trials=2")
    code, text = run(tmp_path, *words)
    assert code == 0, text
    assert "arms are chosen as results come in" in text
    [folder] = tmp_path.glob("sweeps/*")
    assert (folder / "report.html").exists()
    found = OmegaConf.load(folder / "optimization_results.yaml")
    assert 1 <= len(found.solutions) <= 2
    assert len(found.solutions[0]["values"]) == 3
    assert [len(made(tmp_path, stage)) for stage in ("pm", "rl")] == [1, 2]


@pytest.mark.parametrize("word", ["joblib", "slurm", "submitit", "ray"])
def test_a_launcher_that_is_not_installed_is_said_in_a_sentence(word, monkeypatch, capsys):
    from cai import __main__ as program

    extra = {"slurm": "submitit"}.get(word, word)
    if installed(f"hydra_{extra}_launcher"):
        pytest.skip("it is installed")
    words = ["+sweep=kl", f"+launch={word}"]
    monkeypatch.setattr(sys, "argv", ["cai", *words])
    monkeypatch.setattr(sweep, "failures", [])
    assert program.main() == 1
    said = capsys.readouterr().err.strip()
    assert said.startswith(f"hydra/launcher={extra}")
    assert said.endswith(f" is not installed: pip install 'constitutional-ai[{extra}]'")
