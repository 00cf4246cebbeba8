"""The contract of a stage: what it is hashed on, what it is handed, and what is refused."""

import importlib
import os
import subprocess
import sys
from dataclasses import dataclass, field, make_dataclass
from functools import cache
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from hydra import compose, initialize_config_dir

import cai
from cai.composition import CONF, typed
from cai.config import Config, PMConfig, SFTConfig
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


@cache
def config(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return typed(compose("config", overrides=["model=tiny", "tracking=off", *overrides]))


@pytest.fixture
def chosen():
    return config()


RECIPES = sorted(path.stem for path in (Path(CONF) / "recipe").glob("*.yaml"))


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
def test_a_stage_is_handed_what_it_is_hashed_on_and_nothing_else(stage, chosen):
    seen = stage.read(chosen)
    assert type(seen) is stage.settings
    assert list(vars(seen)) == field_names(stage.settings)
    for name, kind in get_type_hints(stage.settings).items():
        assert getattr(seen, name) is getattr(chosen, name)
        assert type(getattr(seen, name)) is kind
    assert not HOW & set(field_names(seen))


@pytest.mark.parametrize("stage", BUILTIN, ids=lambda stage: stage.name)
@pytest.mark.parametrize("recipe", RECIPES)
def test_what_a_recipe_needs_is_what_inputs_ask_for(stage, recipe, tmp_path):
    """Each is the result of the stage that the field names; only optional ones are absent."""
    table, hints = stages(), get_type_hints(stage.inputs)
    needs = stage.needed(stage.read(config(f"recipe={recipe}")))
    inputs = stage.handed({name: Result(name, name * 9, tmp_path / name) for name in needs})
    assert type(inputs) is stage.inputs
    for name, hint in hints.items():
        kind = table[name].result
        given = getattr(inputs, name)
        if name in needs:
            assert given == kind(name, name * 9, tmp_path / name)
            assert type(given) is kind
            assert kind in (hint, *get_args(hint))
        else:
            assert given is None
            assert type(None) in get_args(hint)
    assert set(needs) <= set(hints)


def test_a_command_answers_before_the_libraries_of_its_stages_are_loaded():
    code = (
        "import sys; from cai.contracts.table import stages; stages(); import cai.__main__; "
        "sys.exit(bool({'numpy', 'scipy', 'torch', 'transformers', 'lightning', 'pyarrow', "
        "'httpx', 'jinja2', 'matplotlib', 'wandb', 'safetensors', 'pydantic'} & set(sys.modules)))"
    )
    path = {**os.environ, "PYTHONPATH": str(Path(cai.__file__).parents[1])}
    assert subprocess.run([sys.executable, "-c", code], env=path, check=False).returncode == 0


def test_results_are_handed_as_the_classes_that_inputs_ask_for(tmp_path):
    stage = stages()["rl"]
    given = {"pm": Result("pm", "a" * 64, tmp_path), "sft": Result("sft", "b" * 64, tmp_path / "s")}
    inputs = stage.handed(given)
    assert type(inputs) is RLInputs
    assert inputs.pm == PreferenceModels("pm", "a" * 64, tmp_path)
    assert inputs.sft == SLCAI("sft", "b" * 64, tmp_path / "s")
    assert inputs.helpful is None
    assert inputs.start is inputs.sft
    helpful = Result("helpful", "c" * 64, tmp_path / "h")
    start = stage.handed({"pm": given["pm"], "helpful": helpful}).start
    assert start == HelpfulAssistant("helpful", "c" * 64, tmp_path / "h")
    with pytest.raises(ValueError, match="an assistant to start from"):
        _ = stage.handed({"pm": given["pm"]}).start


def with_fields(**kinds):
    return make_dataclass("Other", kinds.items())


UNSOUND = [
    ({"settings": dict}, "its settings should be a dataclass, not <class 'dict'>"),
    ({"settings": Settings(ToyConfig(), 0)}, "its settings should be a dataclass, not Settings("),
    ({"inputs": "helpful"}, "its inputs should be a dataclass, not 'helpful'"),
    ({"inputs": dict}, "its inputs should be a dataclass, not <class 'dict'>"),
    ({"settings": with_fields(seed=int)}, "its settings have no field 'toy' for its own node"),
    ({"settings": with_fields(toy=int)}, "its node should be a dataclass, not <class 'int'>"),
    ({"settings": with_fields(toy=dict)}, "its node should be a dataclass, not <class 'dict'>"),
    *(({"settings": with_fields(toy=ToyConfig, **{name: object})}, f"can't have '{name}'")
      for name in sorted(HOW)),
]  # fmt: skip


@pytest.mark.parametrize("changes, said", UNSOUND, ids=[said for _, said in UNSOUND])
def test_a_stage_that_is_not_sound_is_refused_in_one_sentence(changes, said):
    for refuse in (check, lambda stage: table([stage])):
        with pytest.raises(UserError) as caught:
            refuse(toy(**changes))
        assert str(caught.value).startswith("stage 'toy': ")
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_sound_stage_is_taken():
    stage = toy()
    assert table([stage]) == {"toy": stage}
    assert stage.schema is ToyConfig


def test_two_stages_of_one_name_are_refused():
    with pytest.raises(UserError, match="two stages are named 'toy'"):
        table([toy(), toy()])


@dataclass
class WithToy(Config):
    """What conf/ would compose for the toy."""

    toy: ToyConfig = field(default_factory=ToyConfig)


def test_a_need_that_no_stage_meets_is_one_sentence(tmp_path, chosen):
    nodes = {name: getattr(chosen, name) for name in field_names(Config)}
    with_toy = WithToy(**{**nodes, "stage": "toy"})
    stage = toy(needs=lambda settings: ("nowhere",))
    with pytest.raises(UserError) as caught:
        plan(with_toy, Store(tmp_path), table([stage]))
    assert str(caught.value) == (
        "stage 'toy' needs 'nowhere', which no stage makes: the stages are toy"
    )


def test_without_a_rule_a_stage_needs_all_its_inputs(chosen):
    assert toy().needed(None) == ("helpful",)
    assert toy(needs=lambda settings: settings).needed(("a", "b")) == ("a", "b")


def test_a_node_that_is_not_there_is_named(chosen):
    shorter = config("stage=sft")
    with pytest.raises(UserError, match=r"stage=sft needs the node 'pm'.*conf/stage/sft\.yaml"):
        stages()["pm"].read(shorter)
    with pytest.raises(UserError, match="stage=evaluate needs the node 'toy'"):
        toy().read(chosen)
    with pytest.raises(UserError, match="needs the node 'sft'"):
        chosen.node("sft", PMConfig)  # it is something else
    assert isinstance(chosen.node("sft", SFTConfig), SFTConfig)
