"""conf/ composes in every combination, and a mistake is told in one sentence."""

import itertools
import subprocess
import sys
import time

import pytest
from hydra import compose, initialize_config_dir

from cai.composition import CONF, explain, typed
from cai.contracts.table import stages
from cai.errors import UserError

GROUPS = {
    folder.name: sorted(path.stem for path in folder.glob("*.yaml"))
    for folder in CONF.iterdir()
    if folder.is_dir()
}
NEEDED = {
    "hub": ["model.path=a/b", "model.revision=0"],
    "folder": ["model.path=x"],
    "base": ["model.name=mine", "model.source=tiny", "model.path=x", "model.revision=null"],
    "published": ["constitution.folder=x"],
    "vllm": ["sampler.url=http://localhost:8000"],
}


def config(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return typed(compose("config", overrides=list(overrides)))


@pytest.mark.parametrize("group, option", [(g, o) for g, os in GROUPS.items() for o in os])
def test_every_option_composes(group, option):
    assert config(f"{group}={option}", *NEEDED.get(option, []))


def test_every_file_of_every_group_was_visited():
    assert set(GROUPS) == {
        "constitution", "data", "hardware", "model", "recipe", "sampler", "scale", "stage",
        "tracking", "trainer",
    }  # fmt: skip
    assert GROUPS["stage"] == sorted(stages())


@pytest.mark.parametrize("stage, last", itertools.pairwise(stages()))
def test_a_stage_brings_what_is_before_it_and_not_what_is_after(stage, last):
    composed = config(f"stage={stage}")
    assert type(composed.node(stage, object)) is stages()[stage].schema
    with pytest.raises(UserError, match=f"stage={stage} needs the node '{last}': .*{stage}.yaml"):
        composed.node(last, object)


def test_scale_sets_the_sizes():
    assert config("scale=tour").revise.prompts < config("scale=laptop").revise.prompts


def test_recipe_sets_the_chain_of_thought():
    assert config("recipe=rl_cai_cot").feedback.cot
    assert not config("recipe=rl_cai").feedback.cot


BAD = {
    "hardware.strategy=ddpp": ["hardware.strategy=ddpp", "ddp, shard"],
    "trainer.max_time=8h": ["trainer.max_time=8h", "days:hours:minutes:seconds"],
    "stage=rll": ["stage=rll", "evaluate, feedback, helpful"],
    "model=nope": ["model=nope", "smollm2, tiny"],
    "pm.label_smoothin=0.1": ["pm.label_smoothin ", "pm.label_smoothing?"],
    "pm.label_smoothing=0.7": ["pm.label_smoothing=0.7", "[0, 0.5)"],
    "model.dtype=fp8": ["model.dtype=fp8", "fp32, bf16"],
    "seed=abc": ["seed=abc", "Integer"],
    "rl.iterations=0": ["rl.iterations=0", "at least 1"],
    "rl.clip=-1": ["rl.clip=-1", "[0, 10]"],
    "feedback.clamp=[0.6,0.4]": ["feedback.clamp=[0.6, 0.4]", "low <= 0.5 <= high"],
    "sft.start=sft": ["sft.start=sft", "base or helpful"],
    "recipe.start=base": ["recipe.start=base", "helpful or sft"],
    "model=folder": ["model.path", "has no value"],
    "x": ["'x'", "key=value"],
    "+foo=1": ["foo", "not a key"],
}


@pytest.mark.parametrize("override", BAD)
def test_a_mistake_is_one_sentence_with_key_value_and_what_is_allowed(override):
    with pytest.raises(Exception) as caught:
        config(override)
    sentence = explain(caught.value)
    for part in BAD[override]:
        assert part in sentence
    assert "\n" not in sentence
    assert "Traceback" not in sentence


def run(*arguments):
    command = [sys.executable, "-m", "cai", *arguments]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done, time.monotonic() - started


@pytest.mark.parametrize("arguments, code", [(["--help"], 0), (["seed=x"], 1), (["--bad"], 2)])
def test_start_up_is_quick_and_exit_codes_are_right(arguments, code, tmp_path):
    done, seconds = run(*arguments, f"outputs={tmp_path}")
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert seconds < 10, "heavy libraries must not be imported for this"
