"""The contract of a stage: what it is handed, what is refused, and a stage of another project."""

import importlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import get_type_hints

import pytest
from hydra import compose, initialize_config_dir

from cai.composition import CONF, typed
from cai.config import Config, HardwareConfig, SFTConfig
from cai.contracts.assistants import SLCAI, HelpfulAssistant
from cai.contracts.policies import RLInputs
from cai.contracts.preferences import PreferenceModels
from cai.contracts.table import BUILTIN, stages, table
from cai.errors import UserError
from cai.pipeline.plan import plan
from cai.pipeline.stage import HOW, Job, Result, Stage, Work, check, field_names
from cai.pipeline.store import Store


@dataclass
class ToyConfig:
    times: int = 2


@dataclass(frozen=True)
class Settings:
    toy: ToyConfig
    seed: int


@dataclass(frozen=True)
class Inputs:
    helpful: HelpfulAssistant


def run(settings, inputs, out, job):
    pass


def toy(**changes):
    values = {"name": "toy", "settings": Settings, "inputs": Inputs, "result": Result, "run": run,
              "cost": lambda config: Work(0)}  # fmt: skip
    return Stage(**{**values, **changes})


def config(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return typed(compose("config", overrides=["model=tiny", "tracking=off", *overrides]))


@pytest.mark.parametrize("stage", BUILTIN, ids=lambda stage: stage.name)
def test_a_stage_runs_on_the_classes_of_its_contract(stage):
    module = importlib.import_module(f"cai.stages.{stage.name}")
    hints = get_type_hints(module.run)
    assert list(hints) == ["settings", "inputs", "out", "job", "return"]
    assert hints["settings"] is stage.settings
    assert hints["inputs"] is stage.inputs
    assert hints["out"] is stage.result
    assert hints["job"] is Job


@pytest.mark.parametrize("stage", BUILTIN, ids=lambda stage: stage.name)
def test_a_stage_is_handed_what_it_is_hashed_on_and_nothing_else(stage):
    chosen = config()
    seen = stage.read(chosen)
    assert type(seen) is stage.settings
    for name in field_names(seen):
        assert getattr(seen, name) is getattr(chosen, name)
    assert not HOW & set(field_names(seen))


def test_results_are_handed_as_the_classes_that_inputs_ask_for(tmp_path):
    stage = stages()["rl"]
    given = {"pm": Result("pm", "a" * 64, tmp_path), "sft": Result("sft", "b" * 64, tmp_path / "s")}
    inputs = stage.handed(given)
    assert type(inputs) is RLInputs
    assert inputs.pm == PreferenceModels("pm", "a" * 64, tmp_path)
    assert inputs.sft == SLCAI("sft", "b" * 64, tmp_path / "s")
    assert inputs.helpful is None
    assert inputs.start is inputs.sft


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"settings": dict}, "its settings should be a dataclass"),
        ({"inputs": "helpful"}, "its inputs should be a dataclass"),
        ({"settings": make_dataclass("S", [("seed", int)])}, "have no field 'toy'"),
        ({"settings": make_dataclass("S", [("toy", ToyConfig), ("hardware", HardwareConfig)])},
         "can't have 'hardware'"),
        ({"settings": make_dataclass("S", [("toy", int)])}, "should be a dataclass, not"),
    ],
)  # fmt: skip
def test_a_stage_that_is_not_sound_is_refused(changes, said):
    with pytest.raises(UserError, match=r"stage 'toy'.*" + said):
        check(toy(**changes))


def test_two_stages_of_one_name_are_refused():
    with pytest.raises(UserError, match="two stages are named 'toy'"):
        table([toy(), toy()])


def test_a_need_that_no_stage_meets_is_named(tmp_path):
    @dataclass
    class WithToy(Config):
        toy: ToyConfig = field(default_factory=ToyConfig)

    chosen = config()
    nodes = {name: getattr(chosen, name) for name in field_names(Config)}
    chosen = WithToy(**{**nodes, "stage": "toy"})
    stage = toy(needs=lambda settings: ("nowhere",))
    with pytest.raises(UserError, match="stage 'toy' needs 'nowhere', which no stage makes"):
        plan(chosen, Store(tmp_path), table([stage]))


def test_a_node_that_the_stage_file_forgets_is_named():
    chosen = config("stage=sft")
    with pytest.raises(UserError, match=r"stage=sft needs the node 'pm'.*conf/stage/sft\.yaml"):
        stages()["pm"].read(chosen)
    assert isinstance(chosen.node("sft", SFTConfig), SFTConfig)


# A stage of another project: one module, one schema, one config file, one line

MODULE = """
from dataclasses import dataclass

from cai.contracts.assistants import Revisions
from cai.jsonl import Document
from cai.pipeline.stage import Result, Stage, Work


@dataclass
class WordsConfig:
    least: int = 1


@dataclass(frozen=True)
class Settings:
    words: WordsConfig


@dataclass(frozen=True)
class Inputs:
    revise: Revisions


@dataclass(frozen=True)
class Count:
    rows: int
    long: int


class Words(Result):
    @property
    def count(self):
        return Document(self.path / "count.json", Count)


def run(settings, inputs, out, job):
    rows = inputs.revise.rows.read()
    long = sum(len(row.response.split()) >= settings.words.least for row in rows)
    out.count.write(Count(len(rows), long))


STAGE = Stage("words", Settings, Inputs, Words, run, lambda config: Work(0))
"""
FILE = """# @package _global_
defaults: [revise, _self_]
stage: words
words: {least: 0}
"""


@pytest.fixture
def project(tmp_path):
    """Lay out a project as pip would install it."""
    site = tmp_path / "site"
    conf = site / "toy_project" / "conf" / "stage"
    conf.mkdir(parents=True)
    (site / "toy_project" / "__init__.py").touch()
    (site / "toy_project" / "conf" / "__init__.py").touch()
    (site / "toy_project" / "words.py").write_text(MODULE)
    (conf / "words.yaml").write_text(FILE)
    info = site / "toy_project-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-project\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[cai.stages]\nwords = toy_project.words:STAGE\n")
    return site


def launch(project, folder, *overrides):
    path = os.pathsep.join([str(project), str(Path(CONF).parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "cai", "hydra.searchpath=[pkg://toy_project.conf]",
               "model=tiny", "scale=tour", "tracking=off", "hardware=cpu", "hardware.threads=1",
               "stage=words", *overrides]  # fmt: skip
    return subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )


def test_another_project_adds_a_stage(project, tmp_path):
    done = launch(project, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    [count] = (tmp_path / "outputs" / "artifacts").glob("words-*/count.json")
    assert json.loads(count.read_text()) == {"rows": 6, "long": 6}
    again = launch(project, tmp_path, "words.least=999")
    assert again.returncode == 0, again.stderr
    assert "revise: reusing" in again.stderr + again.stdout
    found = {json.loads(p.read_text())["long"] for p in count.parents[1].glob("words-*/count.json")}
    assert found == {0, 6}


@pytest.mark.parametrize(
    "line, said",
    [
        ("words = toy_project.nowhere:STAGE", "the stage 'words' can't be loaded"),
        ("words = toy_project.words:Settings", "is no stage of the name 'words'"),
        ("other = toy_project.words:STAGE", "is no stage of the name 'other'"),
    ],
)
def test_a_broken_line_of_another_project_is_one_sentence(project, tmp_path, line, said):
    (project / "toy_project-1.0.dist-info" / "entry_points.txt").write_text(f"[cai.stages]\n{line}")
    done = launch(project, tmp_path)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
