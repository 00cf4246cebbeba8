"""DPO: the first loss by hand, the gradient by definition, and a preference learnt."""

import math

import pytest
import tiny
import torch
from tiny import randomise, tiny_config

from cai.config import DPOConfig
from cai.dialogue import human
from cai.lm.load import load_model
from cai.lm.packing import Tree
from cai.lm.score import token_logprobs
from cai.training.data import Order
from cai.training.dpo import DPOModule, DPORoles
from cai.training.preference import PairExample


def pairs(model, label=1.0, n=16):
    """The better reply says yes; it is shown first and second in turns."""
    made = []
    for i in range(n):
        replies = [model.chat.response(f"yes {i}"), model.chat.response(f"no {i}")]
        first = i % 2 == 0
        tree = Tree(model.chat.prompt((human(f"q{i}"),)), replies if first else replies[::-1])
        made.append(PairExample(tree, label if first else 1 - label, 1.0, "harmless"))
    return made


def train(hardware, supervised, folder, label=1.0, **settings):
    model = load_model(tiny_config(), hardware)
    for name in ("policy", "reference"):
        model.add_adapter(name, 0)
        randomise(model, name, seed=3)
    config = DPOConfig(**{"beta": 0.5, "smoothing": 0.0, **vars(supervised), **settings})
    data = pairs(model, label)
    roles = DPORoles("policy", "reference")
    module = DPOModule(model, roles, data, config, Order(300, 0))
    with model.use("policy"):
        tiny.train(module, folder)
    return model, data, module.history


def sums(model, adapter, data):
    with model.use(adapter) as network:
        scored = token_logprobs(network, [pair.tree for pair in data], 4096)
    return torch.tensor([[float(reply.sum()) for reply in replies] for replies in scored])


def test_the_first_loss_is_ln_2_because_policy_and_reference_agree(hardware, supervised, tmp_path):
    _, _, history = train(hardware, supervised, tmp_path)
    assert history[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert history[0]["margin"] == pytest.approx(0, abs=1e-4)


def test_the_preferred_reply_gains_and_the_reference_stays(hardware, supervised, tmp_path):
    supervised.epochs = 6
    model, data, history = train(hardware, supervised, tmp_path)
    policy, reference = sums(model, "policy", data), sums(model, "reference", data)
    gain = policy - reference
    sign = torch.tensor([1.0 if pair.label > 0.5 else -1.0 for pair in data])
    assert ((gain[:, 0] - gain[:, 1]) * sign > 0).all()
    assert history[-1]["accuracy"] == 1
    fresh = load_model(tiny_config(), hardware)
    fresh.add_adapter("reference", 0)
    randomise(fresh, "reference", seed=3)
    weights = (m.adapter_parameters("reference") for m in (model, fresh))
    assert all(torch.equal(one, other) for one, other in zip(*weights, strict=True))
    torch.testing.assert_close(sums(fresh, "reference", data), reference, atol=1e-4, rtol=0)


def test_a_tie_pulls_nowhere_and_a_soft_label_less_than_a_hard_one(hardware, supervised, tmp_path):
    norms = [
        train(hardware, supervised, tmp_path / str(label), label)[2][0]["grad_norm"]
        for label in (0.5, 0.75, 1.0)
    ]
    # The gradient is (sigma(0) - label) times the same direction: 0, 1/4 and 1/2 of it.
    assert norms[0] == pytest.approx(0, abs=1e-3 * norms[2])
    assert norms[1] == pytest.approx(norms[2] / 2, rel=1e-3)


@pytest.mark.parametrize("change", [{"beta": 0.05}, {"smoothing": 0.2}])
def test_every_option_changes_the_result(hardware, supervised, tmp_path, change):
    plain = train(hardware, supervised, tmp_path / "a")[2][-1]["loss"]
    changed = train(hardware, supervised, tmp_path / "b", **change)[2][-1]["loss"]
    assert abs(plain - changed) > 1e-3
