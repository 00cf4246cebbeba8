"""Full fine-tuning: a copy of all weights goes by a name like an adapter."""

import pytest
import test_ppo
import tiny
import torch
from test_config import config as composed_config
from test_training import Killed, examples
from tiny import randomise, tiny_config
from transformers import AutoModelForCausalLM

from cai.config import Quantization
from cai.contracts.assistants import SFTSettings
from cai.errors import UserError
from cai.lm.heads import save_model
from cai.lm.load import load_model
from cai.lm.packing import hidden_states, pack
from cai.lm.score import token_logprobs
from cai.training.data import Order
from cai.training.sft import SFTModule


def flat(model, name):
    return torch.cat([p.detach().flatten() for p in model.weights_of(name)])


def read(model, name):
    with model.use(name) as network:
        return hidden_states(network, pack(examples(model, 3))).detach()


def train(hardware, supervised, folder, stop_after=None):
    model = load_model(tiny_config(), hardware)
    model.add_whole("all")
    with model.use("all"):
        module = SFTModule(model, "all", examples(model), supervised, Order(2048, 3))
        if stop_after is None:
            tiny.train(module, folder, every=2)
        else:
            with pytest.raises(KeyError):
                tiny.train(module, folder, every=2, callbacks=[Killed(stop_after)])
    return model, module


def test_all_weights_learn_and_resume_to_the_bit(hardware, supervised, tmp_path):
    supervised.optimizer.lr = 1e-3
    undisturbed, module = train(hardware, supervised, tmp_path / "..")
    assert module.history[-1]["loss"] < module.history[0]["loss"]
    fresh = load_model(tiny_config(), hardware)
    moved = [
        not torch.equal(weight, own)
        for weight, own in zip(undisturbed.weights_of("all"), fresh.network.parameters())
    ]
    assert all(moved), "every weight is trained"
    train(hardware, supervised, tmp_path, stop_after=5)
    resumed, again = train(hardware, supervised, tmp_path)
    assert torch.equal(flat(undisturbed, "all"), flat(resumed, "all"))
    assert again.history == module.history


def test_the_base_and_its_adapters_stay_what_they_are(hardware, tmp_path):
    model = load_model(tiny_config(), hardware)
    model.add_adapter("a", 1)
    randomise(model, "a")
    before = [read(model, name) for name in (None, "a")]
    model.add_whole("all")
    assert torch.equal(read(model, "all"), before[0])
    with torch.no_grad():
        for weight in model.weights_of("all"):
            weight.mul_(1.1)
    with model.sampling("a"), model.sampling("all"):
        pass
    assert not torch.allclose(read(model, "all"), before[0])
    assert all(torch.equal(read(model, n), old) for n, old in zip((None, "a"), before))


def test_an_adapter_is_folded_in(hardware, tmp_path):
    model = load_model(tiny_config(), hardware)
    model.add_adapter("a", 1)
    randomise(model, "a")
    save_model(model, "a", tmp_path)
    model.add_whole("all", tmp_path)
    torch.testing.assert_close(read(model, "all"), read(model, "a"), atol=1e-4, rtol=0)


def test_what_is_saved_is_a_plain_model_and_comes_back(hardware, tmp_path):
    model = load_model(tiny_config(), hardware)
    model.add_whole("all")
    with torch.no_grad():
        for weight in model.weights_of("all"):
            weight.mul_(1.1)
    save_model(model, "all", tmp_path)
    trees = examples(model, 2)
    with model.use("all") as network:
        ours = [float(part.sum()) for [part] in token_logprobs(network, trees, 500)]
    again = load_model(tiny_config(), hardware)
    again.add_adapter("system", 0, tmp_path)
    assert torch.equal(flat(again, "system"), flat(model, "all"))
    plain = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    theirs = [float(part.sum()) for [part] in token_logprobs(plain, trees, 500)]
    assert ours == pytest.approx(theirs, abs=1e-3)


def test_ppo_trains_all_weights_beside_a_copy_of_the_start(hardware, tmp_path):
    model, roles = test_ppo.cast(hardware)
    for name in ("all", "start"):
        model.add_whole(name)
    roles = test_ppo.Roles("all", "start", roles.critic, roles.critic_head, roles.reward)
    base, before = flat(model, "start").clone(), flat(model, "all").clone()
    prompts = test_ppo.Prompts(*([model.chat.prompt((test_ppo.human(f"{kind} {i}"),))
                                  for i in range(5)] for kind in ("red", "help")))  # fmt: skip
    changes = {"iterations": 2, "optimizer.lr": 1e-3}
    module = test_ppo.PPOModule(model, roles, prompts, test_ppo.settings(**changes), Order(2048, 0))
    tiny.train(module, tmp_path)
    assert not torch.equal(flat(model, "all"), before)
    assert torch.equal(flat(model, "start"), base)
    assert module.history[0]["kl"] == 0, "the reference is the same to the bit"
    assert max(row["sampler_gap"] for row in module.history) < 1e-4


@pytest.mark.parametrize("stage", ["sft", "pm", "rl"])
def test_a_quantised_base_is_refused_before_anything_runs(stage):
    config = composed_config("stage=rl")
    config.model.quantization = Quantization.nf4
    getattr(config, stage).full_finetuning = True
    from cai.contracts.table import stages

    with pytest.raises(UserError, match=rf"nf4 has no weights .* {stage}.full_finetuning=false"):
        stages()[stage].read(config)
    config.model.quantization = Quantization.none
    assert stages()["sft"].read(config).model is config.model
    assert isinstance(stages()["sft"].read(config), SFTSettings)


def test_an_adapter_on_a_tuned_base_is_refused():
    with pytest.raises(UserError, match=r"leaves no adapter .* rl.full_finetuning=true"):
        composed_config("stage=rl", "sft.full_finetuning=true")
    composed_config("stage=rl", "sft.full_finetuning=true", "rl.full_finetuning=true")
    composed_config("stage=sft", "sft.full_finetuning=true")


@pytest.mark.parametrize("stage", ["sft", "pm", "rl"])
def test_a_sharded_base_is_refused_before_anything_runs(stage):
    with pytest.raises(UserError, match=rf"shard keeps the base frozen: set {stage}\.full"):
        composed_config("stage=rl", "hardware=shard", f"{stage}.full_finetuning=true")


@pytest.mark.parametrize("stage", ["sft", "rl"])
def test_a_server_that_takes_adapters_alone_is_refused_before_anything_runs(stage):
    given = ("stage=rl", "sampler=vllm", "sampler.url=http://localhost:8000")
    with pytest.raises(UserError, match=rf"adapters alone: set {stage}\.full_finetuning=false"):
        composed_config(*given, f"{stage}.full_finetuning=true")
    composed_config(*given, "pm.full_finetuning=true")
