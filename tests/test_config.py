"""conf/ composes in every combination, and a mistake is told in one sentence."""

import itertools
import subprocess
import sys
import time
from dataclasses import fields, is_dataclass, replace

import pytest
from hydra import compose, initialize_config_dir

from cai.composition import CONF, schema, typed
from cai.config import OptimizerConfig, OptimizerKind
from cai.contracts.table import stages
from cai.errors import UserError
from cai.sentences import explain

schema()  # for processes that import this without what pytest prepares
GROUPS = {
    folder.name: sorted(path.stem for path in folder.glob("*.yaml"))
    for folder in CONF.iterdir()
    if folder.is_dir()
}
PLAIN = {name: options for name, options in GROUPS.items() if name != "optimizer"}
NEEDED = {
    "hub": ["model.path=a/b", "model.revision=0"],
    "folder": ["model.path=x", "judge.models.harmlessness=x"],
    "endpoint": ["judge.endpoint.url=http://localhost:1", "judge.endpoint.model=x"],
    "base": ["model.name=mine", "model.source=tiny", "model.path=x", "model.revision=null"],
    "published": ["constitution.folder=x"],
    "vllm": ["sampler.url=http://localhost:8000"],
    "files": ["data.files.red_team.path=x"],
}
INHERITED = {"judge": "labels", "data": "builtin"}
"""Groups whose file ``base`` is no choice, but what others inherit."""


def config(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return typed(compose("config", overrides=list(overrides)))


@pytest.mark.parametrize("group, option", [(g, o) for g, os in PLAIN.items() for o in os])
def test_every_option_composes(group, option):
    if option == "base" and group in INHERITED:
        option, needed = INHERITED[group], []
    else:
        needed = NEEDED.get(option, [])
    assert config(f"{group}={option}", *needed)


def test_every_file_of_every_group_was_visited():
    assert set(GROUPS) == {
        "constitution", "data", "hardware", "judge", "model", "optimizer", "recipe", "sampler",
        "scale", "stage", "tracking", "trainer",
    }  # fmt: skip
    assert GROUPS["stage"] == sorted(stages())


def optimizers(node, prefix=""):
    """Yield the dotted name of every optimizer in a node, and the optimizer."""
    for item in fields(node):
        value, name = getattr(node, item.name), prefix + item.name
        if isinstance(value, OptimizerConfig):
            yield name, value
        elif is_dataclass(value):
            yield from optimizers(value, f"{name}.")


PLACES = dict(optimizers(config()))


@pytest.mark.parametrize("place, option", itertools.product(PLACES, GROUPS["optimizer"]))
def test_every_optimizer_composes_wherever_something_is_trained(place, option):
    found = dict(optimizers(config(f"optimizer@{place}={option}")))
    assert found.pop(place) == replace(PLACES[place], kind=OptimizerKind(option))
    assert found == {name: node for name, node in PLACES.items() if name != place}


def nodes(node, name):
    """Yield every node with its dotted name."""
    yield name, node
    for item in fields(node):
        value = getattr(node, item.name)
        if is_dataclass(value):
            yield from nodes(value, f"{name}.{item.name}")


@pytest.mark.parametrize("stage", stages())
def test_a_node_can_be_taken_in_at_a_glance(stage):
    composed = config(f"stage={stage}")
    tops = [(name, node) for name, node in vars(composed).items() if is_dataclass(node)]
    assert stage in dict(tops)
    found = dict(inner for name, node in tops for inner in nodes(node, name))
    assert {name for name, node in found.items() if len(fields(node)) > 12} == set()


CHAIN = [name for name in stages() if name != "judge"]  # which has a group of its own


@pytest.mark.parametrize("stage, last", itertools.pairwise(CHAIN))
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
    "pm.label_smoothin=0.1": ["pm.label_smoothin ", "pm.label_smoothing"],
    "pm.label_smoothing=0.7": ["pm.label_smoothing=0.7", "[0, 0.5)", "share of flipped labels"],
    "model.dtype=fp8": ["model.dtype=fp8", "fp32, bf16"],
    "rl.lr=0.1": ["rl.lr is not a key"],
    "rl.optimizer.lr=2": ["rl.optimizer.lr=2 ", "[0, 1]"],
    "rl.critic.optimizer.warmup=2": ["rl.critic.optimizer.warmup=2 ", "[0, 1]"],
    "rl.dpo.optimizer.max_grad_norm=0": ["rl.dpo.optimizer.max_grad_norm=0 ", ".inf"],
    "pm.optimizer.batch_size=2": ["pm.optimizer.batch_size is not", "pm.batch_size"],
    "pm.epochs=-1": ["pm.epochs=-1 ", "[0, 1000]"],
    "optimizer@pm.optimizer=sgd": ["optimizer=sgd", "adamw, adamw_8bit, paged_adamw_8bit"],
    "optimizer=adamw": ["optimizer is not a key", "pm.optimizer"],
    "rl.optimizer=adamw_8bit": ["rl.optimizer=adamw_8bit", "rl.optimizer.kind, rl.optimizer.lr"],
    "feedback.label=hard": ["feedback.label=hard", "set one of feedback.label.kind"],
    "evaluate.paper_tests=x": ["evaluate.paper_tests=x", "set one of evaluate.paper_tests.folder"],
    "evaluate.ratings=x": ["evaluate.ratings is not a key", "did you mean"],
    "seed=abc": ["seed=abc", "Integer"],
    "rl.iterations=0": ["rl.iterations=0", "[1, 1e9]"],
    "rl.ppo.clip=-1": ["rl.ppo.clip=-1", "[0, 10]"],
    "feedback.label.clamp=[0.6,0.4]": ["feedback.label.clamp=[0.6, 0.4]", "low <= 0.5 <= high"],
    "sft.start=sft": ["sft.start=sft", "base or helpful"],
    "recipe.start=base": ["recipe.start=base", "helpful or sft"],
    "model=folder": ["model.path", "has no value"],
    "x": ["'x'", "key=value"],
    "+foo=1": ["foo", "not a key"],
    "rl.critic.clip=-1": ["rl.critic.clip=-1", "(0, 1e6]"],
    "rl.ppo.stop_kl=nan": ["rl.ppo.stop_kl=nan", "[0, 1e6]"],
    "rl.kl.target=0": ["rl.kl.target=0", "(0, 1e6]"],
    "rl.rollout.min_reply_tokens=81": ["min_reply_tokens=81", "reply_tokens=80", "lower"],
    "sft.optimizer.weight_decay=inf": ["sft.optimizer.weight_decay=inf", "[0, 100]"],
    "seed=18446744073709551616": ["seed=18446744073709551616", "9223372036854775807"],
    "rl.iterations=100000000000000000000": ["rl.iterations=1e20", "[1, 1e9]"],
    "scale.rl.rollouts=0": ["scale.rl.rollouts=0", "[1, 1e9]"],
    "+model.template_options.deep={x:[inf]}": ["model.template_options.deep.x=inf", "finite"],
    "helpful=null": ["helpful=null", "set one of helpful.optimizer"],
    "model=3": ["model=3 is not there", "smollm2, tiny"],
    "model=null": ["model=null is not there", "smollm2, tiny"],
    "scale=": ["scale= is not there", "laptop, paper, tour"],
    "optimizer@pm.optimizer=null": ["optimizer=null is not there", "adamw"],
    "outputs=": ["outputs is empty", "folder"],
    "+pm.typo=": ["pm.typo is not a key", "did you mean"],
    "+pm.optimizer.typo=1": ["pm.optimizer.typo is not a key"],
    "++pm.lable_smoothing=0.2": ["pm.lable_smoothing is not a key", "pm.label_smoothing"],
    "rl.ppo={clap:3}": ["rl.ppo has no such key", "clap"],
    "~pm": ["~pm takes out"],
    "~pm.epochs": ["~pm.epochs takes out"],
    "~seed": ["~seed takes out"],
    "data.folder=/a=b": ["'data.folder=/a=b' can't be read", "quotes"],
    "seed=${nope}": ["seed: ", "nope"],
    "seed=" + "9" * 5000: ["seed=999", "can't be read"],
    "seed=" + "[" * 3000 + "]" * 3000: ["seed=[[[", "can't be read"],
    "rl.ppo.clip=1" + "0" * 400: ["rl.ppo.clip=1000", "can't be applied"],
    "\x1b[31mx=1": ["x=1", "key=value"],
    "a.url=http://h/?k=sk-secret": ["a.url=...", "can't be read"],
    "feedback.method=http://me:sk-secret@h/v1": ["feedback.method=http://...", "choice"],
    "feedback.method='http://h/v1?sk-secret'": ["feedback.method=", "http://h/v1...", "choice"],
    "data.files.judgements.columns.revision='http://h/?k=sk-secret'": [
        "is only read by data=files"
    ],
    "data.files={helpful:{path:a}}": ["data.files is only read by data=files"],
    "model.name='http://h/?k=sk-secret'": ["model.name holds an address"],
    "tracking.tags=['https://me:sk-secret@h/x']": ["tracking.tags holds an address"],
}
"""A mistake, and what the sentence about it says."""


@pytest.mark.parametrize("override", BAD, ids=lambda override: ascii(override[:60]))
def test_a_mistake_is_one_sentence_with_key_value_and_what_is_allowed(override, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["cai", override])
    with pytest.raises(Exception) as caught:
        config(override)
    sentence = explain(caught.value)
    assert len(sentence) < 600
    assert sentence.isprintable()
    assert "sk-secret" not in sentence
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
