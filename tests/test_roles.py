"""Other models than the policy's: for labels, and under the preference model."""

from dataclasses import replace

import families
import pytest
from hydra import compose, initialize_config_dir
from tiny import randomise, tiny_config

from cai.composition import CONF, typed
from cai.config import ModelSource
from cai.contracts.preferences import PreferenceModels
from cai.contracts.table import stages
from cai.dialogue import human
from cai.errors import UserError
from cai.lm.heads import ScalarHead, save_model
from cai.lm.load import load_copy
from cai.lm.packing import Tree
from cai.pipeline.execute import execute
from cai.pipeline.plan import plan
from cai.pipeline.store import Store
from cai.results.labels import PMMetrics, PMSettings
from cai.sentences import explain
from cai.stages import feedback
from cai.training.preference import score_responses
from cai.training.reward import load_reward_model

TOUR = ("model=tiny", "scale=tour", "tracking=off", "hardware=cpu", "hardware.threads=1")
LENIENT = ("revise.guards.truncation=false", "revise.guards.markers=false")


def config(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return typed(compose("config", overrides=[*TOUR, *overrides]))


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A model with another tokenizer."""
    return families.make(tmp_path_factory.mktemp("roles") / "model", "Qwen2")


@pytest.mark.parametrize("node", ["pm.base", "feedback.labeller"])
def test_a_role_without_a_model_has_no_keys(monkeypatch, node):
    monkeypatch.setattr("sys.argv", ["cai", f"{node}.context=900"])
    with pytest.raises(Exception) as caught:  # Hydra's own, in one sentence below
        config(f"{node}.context=900")
    said = f"{node}.context is only read by model@{node}=NAME: add that"
    assert said in explain(caught.value)


def test_of_several_keys_the_one_without_a_model_is_named(monkeypatch):
    words = ["model@pm.base=tiny", "pm.base.context=900", "feedback.labeller.context=800"]
    monkeypatch.setattr("sys.argv", ["cai", *words])
    with pytest.raises(Exception) as caught:
        config(*words)
    assert explain(caught.value).startswith("feedback.labeller.context is only read by model@")


def test_a_role_takes_a_config_of_the_group(other):
    chosen = config("model@feedback.labeller=folder", f"feedback.labeller.path={other}",
                    "feedback.labeller.context=900", "model@pm.base=tiny")  # fmt: skip
    assert chosen.feedback.labeller.path == str(other)
    assert chosen.feedback.labeller.context == 900
    assert chosen.pm.base == chosen.model
    assert config().feedback.labeller is config().pm.base is None


def test_it_is_hashed_where_it_is_used(tmp_path, other):
    def keys(*overrides):
        steps = plan(config(*overrides), Store(tmp_path / "store"), stages())
        return {step.stage.name: step for step in steps}

    def changed(one, two):
        return {name for name in one if one[name].key != two[name].key}

    usual = keys()
    labelled = keys("model@feedback.labeller=folder", f"feedback.labeller.path={other}")
    assert changed(usual, labelled) == {"feedback", "pm", "rl", "evaluate"}
    content = labelled["feedback"].recipe["content"]
    assert content.keys() >= {"feedback.labeller.path", "feedback.labeller.template"}
    based = keys("model@pm.base=folder", f"pm.base.path={other}")
    assert changed(usual, based) == {"pm", "rl", "evaluate"}
    assert based["pm"].recipe["content"].keys() >= {"pm.base.path", "pm.base.template"}


def test_two_labellers_are_one_too_many():
    with pytest.raises(UserError, match="both label: give one of them"):
        config("model@feedback.labeller=tiny", "feedback.endpoint.url=http://a:1",
               "feedback.endpoint.model=a")  # fmt: skip


def test_a_preference_model_in_other_tokens_hears_the_conversation(tiny, hardware, other, tmp_path):
    chosen = tiny_config(source=ModelSource.folder, path=str(other), context=4096)
    base = load_copy(chosen, hardware)
    base.add_adapter("pm", 0)
    randomise(base, "pm")
    head = ScalarHead(base.hidden_size, 1)
    pm = PreferenceModels("pm", "0", tmp_path)
    save_model(base, "pm", pm.named("model").path, head)
    pm.named("model").metrics.write(PMMetrics([], 0.25, 1.0, None, [], {}, 0))
    pm.settings.write(PMSettings(0.0, chosen))
    assert pm.settings.read().base == chosen
    reward = load_reward_model(hardware, tiny, pm, "model")
    talk, reply = (human("Where do herons live?"),), "By the water (mostly)."
    heard = Tree(base.chat.prompt(talk), [base.chat.response(reply)])
    with base.use("pm"):
        [[score]] = score_responses(base, head, [heard], 4096)
    said = Tree(tiny.chat.prompt(talk), [tiny.chat.response(reply)])
    assert said.prompt != heard.prompt
    assert reward.score([said], 4096).tolist() == pytest.approx([score - 0.25], abs=1e-5)
    cut = Tree(said.prompt, [said.responses[0][:-1]])  # it ran into the limit
    assert reward.score([cut], 4096).tolist() == pytest.approx([score - 0.25], abs=1e-5)
    same = load_reward_model(hardware, load_copy(chosen, hardware), pm, "model")
    assert same.speaker is None
    assert same.score([heard], 4096).tolist() == pytest.approx([score - 0.25], abs=1e-5)


@pytest.mark.timeout(900)
def test_both_take_part_in_a_run(tmp_path, other, monkeypatch):
    """Labels by one model, a PM on it, and a policy of another that PPO trains against it."""
    loaded = []
    load = feedback.load_model
    monkeypatch.setattr(
        feedback,
        "load_model",
        lambda chosen, *rest: loaded.append(chosen.path) or load(chosen, *rest),
    )
    roles = ("model@feedback.labeller=folder", f"feedback.labeller.path={other}",
             "model@pm.base=folder", f"pm.base.path={other}", "feedback.labeller.dtype=fp32",
             "pm.base.dtype=fp32", "feedback.label.calibrate=false", "rl.iterations=1",
             "rl.critic.start=pm")  # fmt: skip
    chosen = config("stage=rl", *LENIENT, *roles)
    store = Store(tmp_path / "artifacts")
    with pytest.raises(UserError, match=r"rl\.critic\.start=zero, or leave pm\.base out"):
        execute(plan(chosen, store, stages()), chosen, store, tmp_path)
    assert loaded == [str(other)]
    chosen = replace(chosen, rl=config("stage=rl", *roles, "rl.critic.start=zero").rl)
    steps = plan(chosen, store, stages())
    made = execute(steps, chosen, store, tmp_path)
    assert made.record()["made"]["sampler"] == "local"
