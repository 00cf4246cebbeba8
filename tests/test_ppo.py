"""PPO on a tiny model: right roles, right ratios, resumable, and every option does something."""

import copy
from functools import reduce

import lightning as L
import pytest
import tiny
import torch
from tiny import randomise, tiny_config

from cai.algorithms.ppo import AdaptiveKL, FixedKL
from cai.config import (
    AdvantageConfig,
    CriticConfig,
    CriticStart,
    Guard,
    KLConfig,
    KLControl,
    OptimizerKind,
    PPOConfig,
    RewardConfig,
    RLConfig,
    RolloutConfig,
    Schedule,
    WatchConfig,
)
from cai.dialogue import human
from cai.errors import UserError
from cai.lm.heads import ScalarHead, ScalarModel
from cai.lm.load import load_model
from cai.lm.packing import Tree
from cai.training import iteration
from cai.training.data import Order
from cai.training.iteration import Prompts, Roles, kl_controller
from cai.training.ppo import PPOModule
from cai.training.preference import score_responses
from cai.training.rollouts import RewardModel, value_grid


def settings(**changes):
    """Keys of inner nodes are dotted."""
    made = RLConfig(
        iterations=4,
        full_finetuning=False,
        rollout=RolloutConfig(
            prompts=6, red_team_share=0.5, temperature=1.0, reply_tokens=8, min_reply_tokens=1
        ),
        reward=RewardConfig(scale=True, missing_eos_penalty=1.0, repetition_penalty=1.0),
        kl=KLConfig(control=KLControl.fixed, coefficient=0.05, target=1.0, horizon=100),
        advantage=AdvantageConfig(gamma=1.0, gae_lambda=0.95, whiten=True),
        ppo=PPOConfig(epochs=2, minibatches=2, clip=0.2, entropy_bonus=0.0, stop_kl=None),
        optimizer=optimizer(),
        critic=CriticConfig(
            start=CriticStart.zero, warmup_iterations=0, clip=0.2, optimizer=optimizer()
        ),
        watch=WatchConfig(evaluate_every=2, guard=Guard.off),
    )
    for key, value in changes.items():
        *nodes, name = key.split(".")
        node = reduce(getattr, nodes, made)
        assert hasattr(node, name)
        setattr(node, name, value)
    return made


def optimizer():
    return tiny.tiny_optimizer(lr=5e-3, schedule=Schedule.constant, warmup=0.0)


def cast(hardware):
    model = load_model(tiny_config(), hardware)
    for name in ("policy", "reference", "critic", "pm"):
        model.add_adapter(name, 1)
    for name in ("policy", "reference"):
        randomise(model, name, seed=1)
    randomise(model, "pm", seed=2)
    reward = RewardModel([ScalarModel(model, "pm", ScalarHead(model.hidden_size, 3))], 0.0, 0.0)
    critic = ScalarHead(model.hidden_size, None)
    return model, Roles("policy", "reference", "critic", critic, reward)


def make(hardware, score=None, **changes):
    model, roles = cast(hardware)
    prompts = Prompts(
        *(
            [model.chat.prompt((human(f"{kind} {i}"),)) for i in range(5)]
            for kind in ("red", "help")
        )
    )
    module = PPOModule(model, roles, prompts, settings(**changes), Order(2048, 0))
    if score is not None:
        module.score = score
    return model, module


def run(hardware, folder, score=None, **changes):
    model, module = make(hardware, score, **changes)
    tiny.train(module, folder, every=1)
    return model, module


def weights(model, name="policy"):
    return torch.cat([p.detach().flatten() for p in model.adapter_parameters(name)])


@pytest.fixture(scope="module")
def standard(tmp_path_factory):
    return run(tiny.tiny_hardware(), tmp_path_factory.mktemp("ppo"))


def test_the_first_ratio_is_one_and_the_sampler_agrees(standard):
    _, module = standard
    for row in module.history:
        assert row["first_ratio"] == pytest.approx(1, abs=1e-5)
        assert row["sampler_gap"] < 1e-4


def test_the_reference_is_the_adapter_it_started_from_and_not_the_base(hardware):
    model, module = make(hardware)
    rollouts = module.collect(0)
    torch.testing.assert_close(rollouts.logp, rollouts.ref_logp)
    base = Roles("policy", None, "critic", module._roles.critic_head, module._roles.reward)
    module._roles = base
    assert not torch.allclose(module.collect(0).ref_logp, rollouts.logp)


def test_frozen_adapters_stay_frozen_and_trained_ones_move(standard, hardware):
    model, _ = standard
    fresh, _ = cast(hardware)
    for name in ("reference", "pm"):
        assert torch.equal(weights(model, name), weights(fresh, name))
    for name in ("policy", "critic"):
        assert not torch.equal(weights(model, name), weights(fresh, name))


def test_tokens_are_never_decoded_in_between(hardware):
    model, module = make(hardware)
    rollouts = module.collect(0)
    for tree, ended in zip(rollouts.trees, rollouts.ended.tolist()):
        assert (tree.responses[0][-1] == model.chat.stop_id) == ended


def test_the_score_stands_on_the_last_token_even_if_it_is_the_stop_token(hardware):
    _, module = make(hardware, **{"reward.scale": False, "kl.coefficient": 0.0})
    rollouts = module.collect(0)
    rewards = module.rewards(rollouts)
    for row, tree in enumerate(rollouts.trees):
        last = len(tree.responses[0]) - 1
        assert rewards[row, last] == pytest.approx(float(rollouts.scores[row]))
        assert rewards[row].count_nonzero() == 1


def test_prompts_come_in_their_shares_and_each_once_an_epoch(hardware):
    model, module = make(hardware, **{"rollout.red_team_share": 1.0, "rollout.prompts": 5})
    red = module._prompts.red_team
    assert sorted(module.prompts_of(0)) == sorted(red)
    assert module.prompts_of(0) != module.prompts_of(1)
    assert module.prompts_of(1) == module.prompts_of(1)


OPTIONS = [
    {"ppo.clip": 0.001},
    {"ppo.epochs": 1},
    {"ppo.minibatches": 1},
    {"ppo.entropy_bonus": 0.1},
    {"ppo.stop_kl": 1e-9},
    {"advantage.gae_lambda": 0.0},
    {"advantage.gamma": 0.5},
    {"advantage.whiten": False},
    {"reward.scale": False},
    {"reward.missing_eos_penalty": 0.0},
    {"rollout.temperature": 0.5},
    {"rollout.min_reply_tokens": 6},
    {"rollout.red_team_share": 1.0},
    {"kl.coefficient": 1.0},
    {"kl.control": KLControl.adaptive},
    {"critic.clip": None},
    {"critic.warmup_iterations": 1},
    *(
        {f"{node}.{key}": value}
        for node in ("optimizer", "critic.optimizer")
        for key, value in {
            "kind": OptimizerKind.adamw_8bit,
            "lr": 1e-4,
            "schedule": Schedule.cosine,
            "warmup": 0.5,
            "weight_decay": 0.1,
            "max_grad_norm": 0.01,
        }.items()
    ),
]


@pytest.mark.parametrize("change", OPTIONS, ids=lambda change: next(iter(change)))
def test_every_option_changes_the_result(standard, hardware, tmp_path, change):
    changed, _ = run(hardware, tmp_path, **change)
    both = [torch.cat([weights(m), weights(m, "critic")]) for m in (changed, standard[0])]
    assert not torch.equal(*both)


def test_the_controllers():
    assert type(kl_controller(settings().kl)) is FixedKL
    assert type(kl_controller(settings(**{"kl.control": KLControl.adaptive}).kl)) is AdaptiveKL


def test_a_killed_run_ends_with_the_same_bits(standard, hardware, tmp_path):
    _, module = make(hardware)
    iterate = module.iterate

    def killed(step, attempt=0):
        if step == 2:
            raise KeyError("killed")
        return iterate(step, attempt)

    module.iterate = killed
    with pytest.raises(KeyError):
        tiny.train(module, tmp_path, every=1)
    resumed, again = run(hardware, tmp_path)
    assert torch.equal(weights(resumed), weights(standard[0]))
    assert torch.equal(weights(resumed, "critic"), weights(standard[0], "critic"))
    assert again.history == standard[1].history
    assert again.score_moments == standard[1].score_moments


def test_numbers_that_are_not_finite_are_taken_back_once(hardware, tmp_path):
    model, module = make(hardware, iterations=1)
    iterate, calls = module.iterate, []

    def broken_once(step, attempt=0):
        calls.append(attempt)
        summary = iterate(step, attempt)
        if attempt == 0:
            for parameter in model.adapter_parameters("policy"):
                parameter.data.fill_(float("nan"))
            return {**summary, "policy_loss": float("nan")}
        return summary

    module.iterate = broken_once
    tiny.train(module, tmp_path)
    assert calls == [0, 1]
    assert weights(model).isfinite().all()


def test_numbers_that_stay_broken_end_the_run_with_a_sentence(hardware, tmp_path):
    model, module = make(hardware, iterations=1)
    before = weights(model).clone()
    module.iterate = lambda step, attempt=0: {"loss": float("inf")}
    with pytest.raises(UserError, match="diverged at iteration 0 twice"):
        tiny.train(module, tmp_path)
    assert torch.equal(before, weights(model))


def test_a_watch_can_end_the_training(hardware, tmp_path):
    _, module = make(hardware)

    class Stop(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *rest):
            pl_module.stopped = trainer.should_stop = len(pl_module.history) == 2

    tiny.train(module, tmp_path, callbacks=[Stop()])
    assert [row["step"] for row in module.history] == [0, 1]


def test_a_programmed_reward_rises(hardware, tmp_path):
    """Replies are paid by their share of even tokens."""

    def even(trees):
        return torch.tensor(
            [sum(t % 2 == 0 for t in tree.responses[0]) / len(tree.responses[0]) for tree in trees]
        )

    chosen = {"rollout.prompts": 24, "optimizer.lr": 1e-2}
    chosen |= {"reward.missing_eos_penalty": 0.0, "reward.repetition_penalty": 0.0}
    _, module = run(hardware, tmp_path, even, iterations=25, **chosen)
    scores = [row["score"] for row in module.history]
    assert sum(scores[-5:]) / 5 > sum(scores[:5]) / 5 + 0.1


def test_replies_that_repeat_themselves_are_paid_less(hardware, tmp_path, monkeypatch):
    # A random model writes no words, so another fault of its replies stands for it.
    monkeypatch.setattr(iteration, "runs_in_circles", lambda text: len(text) % 2 == 0)
    free, paid = (
        run(hardware, tmp_path / str(penalty), **{"reward.repetition_penalty": penalty})
        for penalty in (0.0, 5.0)
    )
    first, second = free[1].history[0], paid[1].history[0]
    assert 0 < first["repeats"] == second["repeats"] < 1
    assert first["score"] - second["score"] == pytest.approx(5 * first["repeats"], rel=1e-5)
    assert not torch.equal(weights(free[0]), weights(paid[0]))


def test_several_pms_can_be_bounded_from_below(hardware):
    model, roles = cast(hardware)
    model.add_adapter("pm2", 9)
    randomise(model, "pm2", seed=9)
    members = [*roles.reward.members, ScalarModel(model, "pm2", ScalarHead(model.hidden_size, 8))]
    trees = make(hardware)[1].collect(0).trees
    one, two = (RewardModel([member], 0.0, 0.0).score(trees, 999) for member in members)
    both = RewardModel(members, 0.5, 2.0).score(trees, 999)
    # mean - 2 * |a - b| / 2 - 0.5, the standard deviation of two numbers being half their distance
    expected = (one + two) / 2 - (one - two).abs() - 0.5
    torch.testing.assert_close(both, expected, atol=1e-4, rtol=0)
    assert copy.deepcopy(expected).isfinite().all()


def test_a_reply_that_was_cut_is_scored_as_if_it_ended_there(hardware):
    model, roles = cast(hardware)
    prompt, reply = model.chat.prompt((human("hi"),)), model.chat.response("word")
    cut, whole = (Tree(prompt, [tokens]) for tokens in (reply[:-1], reply))
    one, two = roles.reward.score([cut, whole], 2048)
    assert float(one) == pytest.approx(float(two), abs=1e-5)
    with model.use("pm"):
        [[raw]] = score_responses(model, roles.reward.members[0].head, [cut], 2048)
    assert abs(raw - float(two)) > 1e-3, "the place of the score must matter here"


def test_a_critic_that_starts_as_the_pm_starts_at_its_mean(hardware):
    model, roles = cast(hardware)
    tree = Tree(model.chat.prompt((human("hi"),)), [model.chat.response("word")])
    head = roles.reward.members[0].head
    with model.use("pm"):
        plain = value_grid(model, head, [tree], 2048).values
        head.offset = 3.5
        moved = value_grid(model, head, [tree], 2048).values
    torch.testing.assert_close(moved, plain - 3.5)
