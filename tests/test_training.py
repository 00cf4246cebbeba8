"""Training: micro-batches don't matter, a kill doesn't matter, and soft labels are worth it."""

import copy
import json
import math
import random
import signal
from typing import ClassVar

import lightning as L
import numpy as np
import pytest
import tiny
import torch
from test_config import config as composed_config
from tiny import randomise, tiny_config
from transformers.models.llama.modeling_llama import LlamaMLP

from cai import parallel
from cai.algorithms.calibration import expected_calibration_error, fold, sigmoid
from cai.config import EnsembleConfig, MixtureConfig, OptimizerKind, PMConfig, Schedule
from cai.dialogue import human
from cai.errors import UserError
from cai.lm.generate import Sampling
from cai.lm.heads import ScalarHead, ScalarModel, load_head, save_model
from cai.lm.load import load_model
from cai.lm.packing import Tree, hidden_states, pack
from cai.lm.sampler import LocalSampler
from cai.lm.score import response_scores
from cai.training.data import Order, TreeData, schedule_batches
from cai.training.optimizers import adamw, rate
from cai.training.preference import PairExample, PreferenceModule, end_scores, score_responses
from cai.training.resume import CHECKPOINT
from cai.training.sft import SFTModule, mean_loss
from cai.training.trainer import Fit, fit, seed_everything, user_callbacks


def examples(model, n=12):
    return [
        Tree(
            model.chat.prompt((human(f"question {i}" + "?" * (i % 5)),)),
            [model.chat.response(f"answer {i}" + "!" * (i % 7))],
        )
        for i in range(n)
    ]


def weights(model, name):
    return torch.cat([p.detach().flatten() for p in model.adapter_parameters(name)])


class Killed(L.Callback):
    """Dies in the middle of a step, after its first micro-batch."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == self.step * pl_module.data.per_step + pl_module.data.per_step // 2:
            raise KeyError("killed")


def train(hardware, supervised, folder, micro_tokens=2048, stop_after=None):
    model = load_model(tiny_config(), hardware)
    model.add_adapter("a", 1)
    with model.use("a"):
        module = SFTModule(model, "a", examples(model), supervised, Order(micro_tokens, 3))
        if stop_after is not None:
            with pytest.raises(KeyError):
                tiny.train(module, folder, every=2, callbacks=[Killed(stop_after)])
        else:
            tiny.train(module, folder, every=2)
    return model, module


def test_every_record_is_seen_once_an_epoch(supervised):
    steps = schedule_batches([3] * 10, supervised, 100, 0)
    seen = [i for step in steps for micro in step for i in micro.records]
    assert len(steps) == math.ceil(10 * 2 / 4)
    assert sorted(seen) == sorted(2 * list(range(10)))
    assert schedule_batches([3] * 10, supervised, 100, 1) != steps


def test_micro_batches_stay_within_their_tokens(supervised):
    steps = schedule_batches([30] * 8, supervised, 60, 0)
    assert all(len(micro.records) * 30 <= 60 for step in steps for micro in step)


def test_the_loss_falls_and_counts_the_reply_alone(hardware, supervised, tmp_path):
    model, module = train(hardware, supervised, tmp_path)
    assert module.history[-1]["loss"] < 0.95 * module.history[0]["loss"]
    fresh = load_model(tiny_config(), hardware)
    trees = examples(fresh, 3)
    logits = [
        fresh.network(torch.tensor([[*t.prompt, *t.responses[0]]])).logits[0].log_softmax(-1)
        for t in trees
    ]
    by_hand = [
        -row[len(t.prompt) - 1 + k, token]
        for row, t in zip(logits, trees)
        for k, token in enumerate(t.responses[0])
    ]
    expected = float(torch.stack(by_hand).mean())
    assert mean_loss(fresh, trees, 500) == pytest.approx(expected, abs=1e-5)


def test_micro_batches_do_not_change_the_result(hardware, supervised, tmp_path):
    whole, _ = train(hardware, supervised, tmp_path, 10_000)
    parts, _ = train(hardware, supervised, tmp_path, 120)
    torch.testing.assert_close(weights(whole, "a"), weights(parts, "a"), atol=2e-3, rtol=0)


def test_a_killed_run_ends_with_the_same_bits(hardware, supervised, tmp_path):
    undisturbed, module = train(hardware, supervised, tmp_path / "..")
    train(hardware, supervised, tmp_path, stop_after=5)
    assert (tmp_path / CHECKPOINT).exists()
    resumed, again = train(hardware, supervised, tmp_path)
    assert torch.equal(weights(undisturbed, "a"), weights(resumed, "a"))
    assert again.history == module.history
    assert not (tmp_path / CHECKPOINT).exists()


@pytest.mark.parametrize("tokens", [2048, 120])
def test_a_killed_run_goes_on_with_other_micro_batches(hardware, supervised, tmp_path, tokens):
    """Whoever has run out of memory lowers hardware.micro_tokens and goes on."""
    undisturbed, module = train(hardware, supervised, tmp_path / "..", 120)
    train(hardware, supervised, tmp_path, 120, stop_after=5)
    resumed, again = train(hardware, supervised, tmp_path, tokens)
    assert torch.equal(weights(undisturbed, "a"), weights(resumed, "a")) == (tokens == 120)
    torch.testing.assert_close(weights(undisturbed, "a"), weights(resumed, "a"), atol=2e-3, rtol=0)
    assert [row["step"] for row in again.history] == [row["step"] for row in module.history]


def test_the_state_of_everything_random_is_resumed(hardware, supervised, tmp_path):
    class Draws(L.Callback):
        def __init__(self):
            self.drawn = []

        def on_train_batch_start(self, *rest):
            self.drawn.append((random.random(), float(np.random.rand()), float(torch.rand(()))))

    def run(folder, *more):
        model = load_model(tiny_config(), hardware)
        model.add_adapter("a", 1)
        seed_everything(5)
        np.random.seed(5)
        draws = Draws()
        with model.use("a"):
            module = SFTModule(model, "a", examples(model), supervised, Order(2048, 3))
            tiny.train(module, folder, every=2, callbacks=[*more, draws])
        return draws.drawn

    whole = run(tmp_path / "..")
    with pytest.raises(KeyError):
        run(tmp_path, Killed(5))
    assert len(whole) == 6
    assert run(tmp_path) == whole[4:]


def test_a_loss_that_is_not_finite_ends_the_training_with_a_sentence(
    hardware, supervised, tmp_path
):
    model = load_model(tiny_config(), hardware)
    model.add_adapter("a", 1)
    head = model.network.lm_head.weight.data
    sound = head.clone()

    class Spoil(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 3:
                self.before = weights(model, "a").clone()
                head.fill_(float("nan"))

    spoil = Spoil()
    with model.use("a"):
        module = SFTModule(model, "a", examples(model), supervised, Order(2048, 3))
        with pytest.raises(UserError, match="the loss at step 3 is not finite"):
            tiny.train(module, tmp_path, every=2, callbacks=[spoil])
    head.copy_(sound)  # the next test is given the same base
    assert torch.equal(weights(model, "a"), spoil.before)
    assert torch.load(tmp_path / CHECKPOINT, weights_only=True)["exact_resume"]["steps"] == 2


@pytest.mark.parametrize("step", [3, 5])
def test_weights_that_are_not_finite_are_neither_kept_nor_handed_on(
    hardware, supervised, tmp_path, step
):
    """Their loss would show them a step later: after the checkpoint, or never."""
    model = load_model(tiny_config(), hardware)
    model.add_adapter("a", 1)

    class Spoil(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == step:
                next(iter(model.adapter_parameters("a"))).data.fill_(float("inf"))

    with model.use("a"):
        module = SFTModule(model, "a", examples(model), supervised, Order(2048, 3))
        assert module.n_steps == 6
        with pytest.raises(UserError, match=f"the weights of a are not finite after step {step}"):
            tiny.train(module, tmp_path, every=2, callbacks=[Spoil()])
    kept = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert kept["exact_resume"]["steps"] == step // 2 * 2
    assert all(value.isfinite().all() for value in kept["state_dict"].values())


def another_version(path, state):
    state["exact_resume"]["format"] -= 1
    torch.save(state, path)


def impossible_step(path, state):
    state["exact_resume"]["steps"] = 10**9
    state["history"] = state["history"] * 3
    torch.save(state, path)


def after_the_end(path, state):
    state["exact_resume"]["steps"] = state["exact_resume"]["n_steps"]
    state["history"] = [{"step": i} for i in range(state["exact_resume"]["n_steps"])]
    torch.save(state, path)


def after_a_file_that_is_gone(path, state):
    state["exact_resume"]["beside"] = ["snapshots/00001/transcripts.jsonl"]
    torch.save(state, path)


HARMS = {
    "empty": (lambda path, _: path.write_bytes(b""), "is damaged"),
    "junk": (lambda path, _: path.write_bytes(b"junk"), "is damaged"),
    "cut": (lambda path, _: path.write_bytes(path.read_bytes()[:3000]), "is damaged"),
    "no table": (lambda path, _: torch.save([1, 2], path), "is damaged"),
    "version": (another_version, "was written by another version"),
    "step": (impossible_step, "which can't be"),
    "end": (after_the_end, "which can't be"),
    "gone": (after_a_file_that_is_gone, "which is gone"),
}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A folder with a checkpoint, and the weights at the end of a training that nothing stopped."""
    from tiny import tiny_hardware, tiny_supervised

    whole, _ = train(tiny_hardware(), tiny_supervised(), tmp_path_factory.mktemp("whole"))
    expected = weights(whole, "a").clone()
    folder = tmp_path_factory.mktemp("stopped")
    train(tiny_hardware(), tiny_supervised(), folder, stop_after=5)
    return folder, expected


@pytest.mark.parametrize("harm", HARMS)
def test_a_checkpoint_that_cannot_be_gone_on_from_is_set_aside(
    hardware, supervised, tmp_path, stopped, harm, caplog
):
    folder, expected = stopped
    path = tmp_path / CHECKPOINT
    path.write_bytes((folder / CHECKPOINT).read_bytes())
    do, said = HARMS[harm]
    do(path, torch.load(path, weights_only=True))
    harmed = path.read_bytes()
    model, _ = train(hardware, supervised, tmp_path)
    assert torch.equal(weights(model, "a"), expected)
    assert said in caplog.text
    assert (tmp_path / f"{CHECKPOINT}.corrupt").read_bytes() == harmed
    assert not path.exists()


class Counts(L.Callback):
    """What somebody may write in ten lines."""

    seen: ClassVar = {}

    def __init__(self, name):
        self.name = name

    def on_train_batch_end(self, trainer, pl_module, *rest):
        self.seen[self.name] = float(trainer.callback_metrics["loss"])


def test_a_callback_of_ones_own_comes_by_config(hardware, supervised, tmp_path):
    model = load_model(tiny_config(), hardware)
    model.add_adapter("a", 1)
    composed = composed_config("trainer.callbacks.mine._target_=test_training.Counts",
                               "trainer.callbacks.mine.name=mine")  # fmt: skip
    with model.use("a"):
        module = SFTModule(model, "a", examples(model), supervised, Order(2048, 3))
        job = Fit("sft", tmp_path, lambda values, step: None)
        fit(module, job, hardware, composed.trainer)
    import test_training  # by the name under which the config finds it

    assert test_training.Counts.seen["mine"] == pytest.approx(module.history[-1]["loss"])


BAD_CALLBACKS = {
    "nothing": ({}, "needs a class"),
    "gone": ({"_target_": "nowhere.Nothing"}, "can't be made"),
    "argument": ({"_target_": "lightning.pytorch.callbacks.Timer", "x": 1}, "can't be made"),
    "other": ({"_target_": "builtins.dict"}, "is not a callback"),
}


@pytest.mark.parametrize("node, words", BAD_CALLBACKS.values(), ids=BAD_CALLBACKS)
def test_a_callback_that_is_none_is_said(node, words):
    with pytest.raises(UserError, match=rf"trainer.callbacks.mine.*{words}"):
        user_callbacks(tiny.tiny_trainer(callbacks={"mine": node}))


def test_a_training_out_of_time_is_not_finished_and_goes_on(hardware, supervised, tmp_path):
    undisturbed, module = train(hardware, supervised, tmp_path / "..")
    model = load_model(tiny_config(), hardware)
    model.add_adapter("a", 1)
    with model.use("a"):
        part = SFTModule(model, "a", examples(model), supervised, Order(2048, 3))
        with pytest.raises(UserError, match="max_time=0:00:00:00 ended test after step 1 of 6"):
            tiny.train(part, tmp_path, max_time="0:00:00:00")
    resumed, again = train(hardware, supervised, tmp_path)
    assert torch.equal(weights(undisturbed, "a"), weights(resumed, "a"))
    assert again.history == module.history


def test_rates_and_speed_are_metrics(hardware, supervised, tmp_path):
    model = load_model(tiny_config(), hardware)
    model.add_adapter("a", 1)
    rows = []
    with model.use("a"):
        module = SFTModule(model, "a", examples(model), supervised, Order(120, 3))
        tiny.train(module, tmp_path, record=lambda values, step: rows.append((step, values)))
    found = [row for row in rows if "lr" in row[1]]
    assert [step for step, _ in found] == list(range(6))
    assert all(values["tokens_per_second"] > 0 for _, values in found)
    # the rate that the next step will use: a rise of one step, then a cosine over five
    factors = [1.0, *(0.5 * (1 + math.cos(math.pi * k / 5)) for k in range(1, 6))]
    assert [v["lr"] for _, v in found] == pytest.approx([1e-2 * f for f in factors])
    assert [v["loss"] for _, v in rows if "loss" in v] == [r["loss"] for r in module.history]


def test_every_process_has_as_many_micro_batches_and_the_extra_ones_do_not_count(
    supervised, monkeypatch
):
    supervised.batch_size = 5
    trees = [Tree([1] * n, [[2] * n]) for n in range(1, 11)]
    seen = []
    for number in range(2):
        monkeypatch.setattr(parallel, "world_size", lambda: 2)
        monkeypatch.setattr(parallel, "rank", lambda n=number: n)
        data = TreeData(trees, [tree.length for tree in trees], supervised, Order(16, 0))
        seen.append(list(data.train_dataloader()))
    assert len(seen[0]) == len(seen[1]) == data.n_steps * data.per_step
    every = [b for own in seen for b in own if b.counts]
    assert sorted(i for b in every for i in b.records) == sorted(2 * list(range(10)))
    assert sum(b.share for b in every) == pytest.approx(data.n_steps)
    assert any(not b.counts for own in seen for b in own)


def test_an_interrupt_stays_one(hardware, supervised, tmp_path):
    """Lightning would leave with an exit code, and no word of how to go on."""
    model = load_model(tiny_config(), hardware)
    model.add_adapter("a", 1)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    with model.use("a"):
        module = SFTModule(model, "a", examples(model), supervised, Order(2048, 3))
        module.loss = lambda batch: signal.raise_signal(signal.SIGINT)
        try:
            with pytest.raises(KeyboardInterrupt):
                tiny.train(module, tmp_path, every=2)
        finally:
            signal.signal(signal.SIGINT, handler)  # Lightning leaves it ignored


def test_adam_is_part_of_what_is_resumed(hardware, supervised, tmp_path):
    """The test above would pass with plain SGD; here the moments are thrown away."""
    undisturbed, _ = train(hardware, supervised, tmp_path / "..")
    train(hardware, supervised, tmp_path, stop_after=5)
    saved = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    for state in saved["optimizer_states"][0]["state"].values():
        state["exp_avg"].zero_()
    torch.save(saved, tmp_path / CHECKPOINT)
    resumed, _ = train(hardware, supervised, tmp_path)
    assert not torch.equal(weights(undisturbed, "a"), weights(resumed, "a"))


def test_only_the_trained_adapter_changes(hardware, supervised, tmp_path):
    model = load_model(tiny_config(), hardware)
    for name in ("a", "b"):
        model.add_adapter(name, 1)
        randomise(model, name)
    before = weights(model, "b").clone()
    base = copy.deepcopy(model.network.model.embed_tokens.weight)
    with model.use("a"):
        module = SFTModule(model, "a", examples(model), supervised, Order(2048, 3))
        names = {name for name, _ in module.named_parameters()}
        assert all(name.startswith("trained_a") for name in names), "frozen models stay out"
        tiny.train(module, tmp_path)
    assert torch.equal(before, weights(model, "b"))
    assert torch.equal(base, model.network.model.embed_tokens.weight)


def test_rates_by_hand():
    cosine = rate(Schedule.cosine, 0.2, 10)
    # two steps of rise: 1/2, 1; then 0.5 (1 + cos(pi k / 8)) for k = 0..7
    expected = [0.5, 1.0, *(0.5 * (1 + math.cos(math.pi * k / 8)) for k in range(8))]
    assert [cosine(step) for step in range(10)] == pytest.approx(expected)
    assert [rate(Schedule.constant, 0.0, 10)(s) for s in (0, 9)] == [1.0, 1.0]


def pm_settings(supervised, **changes):
    values = {
        "mixture": MixtureConfig(harmless=1.0, helpful=1.0),
        "helpful_pairs": 10,
        "label_smoothing": 0.0,
        "centring": 0.0,
        "holdout_twin": False,
        "ensemble": EnsembleConfig(members=1, lower_bound=0.0),
        **vars(supervised),
    }
    return PMConfig(**{**values, **changes})


def pairs(model, n=16):
    """The better reply says yes."""
    chosen = []
    for i in range(n):
        prompt = model.chat.prompt((human(f"q{i}"),))
        replies = [model.chat.response(text) for text in (f"yes {i}", f"no {i}")]
        label = float(i % 2 == 0)
        chosen.append(
            PairExample(Tree(prompt, replies if label else replies[::-1]), label, 1.0, "helpful")
        )
    return chosen


def train_pm(hardware, settings, folder, chosen=None, tokens=4096):
    model = load_model(tiny_config(), hardware)
    model.add_adapter("pm", 1)
    head = ScalarHead(model.hidden_size, 2)
    with model.use("pm"):
        data = chosen(model) if chosen else pairs(model)
        module = PreferenceModule(ScalarModel(model, "pm", head), data, settings, Order(tokens, 0))
        tiny.train(module, folder)
    return model, head, module


def test_a_pm_learns_a_simple_preference(hardware, supervised, tmp_path):
    supervised.epochs = 6
    model, head, module = train_pm(hardware, pm_settings(supervised), tmp_path)
    assert module.history[-1]["loss"] < 0.2 < module.history[0]["loss"]
    prompt = model.chat.prompt((human("new"),))
    with model.use("pm"):
        [[yes, no]] = score_responses(
            model,
            head,
            [Tree(prompt, [model.chat.response("yes 9"), model.chat.response("no 9")])],
            4096,
        )
    assert yes > no


@pytest.mark.parametrize("change", [{"label_smoothing": 0.3}, {"centring": 0.5}])
def test_options_of_the_loss_change_the_result(hardware, supervised, tmp_path, change):
    plain, _, _ = train_pm(hardware, pm_settings(supervised), tmp_path)
    changed, _, _ = train_pm(hardware, pm_settings(supervised, **change), tmp_path)
    assert not torch.allclose(weights(plain, "pm"), weights(changed, "pm"))


def test_a_saved_pm_is_a_plain_sequence_classifier(hardware, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    model = load_model(tiny_config(), hardware)
    model.network.save_pretrained(tmp_path / "base")
    model.add_adapter("pm", 1)
    randomise(model, "pm")
    head = ScalarHead(model.hidden_size, 5)
    save_model(model, "pm", tmp_path / "pm", head)
    prompt = model.chat.prompt((human("q"),))
    response = model.chat.response("a reply")
    with model.use("pm"):
        [[ours]] = score_responses(model, head, [Tree(prompt, [response])], 4096)
    saved = json.loads((tmp_path / "pm" / "adapter_config.json").read_text())
    assert saved["target_modules"] == sorted(saved["target_modules"]), "the same in every process"
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=1)
    plain = PeftModel.from_pretrained(base, tmp_path / "pm").eval()
    # The tokenizer pads with another token than the one that ends a reply.
    plain.config.pad_token_id = 0
    theirs = float(plain(torch.tensor([[*prompt, *response]])).logits)
    assert ours == pytest.approx(theirs, abs=1e-4)
    assert torch.equal(
        load_head(tmp_path / "pm", model.hidden_size).score.weight, head.score.weight
    )


def noisy(kind):
    """Comparisons whose better side is known, with labels that are right 3 times of 4."""
    generator = torch.Generator().manual_seed(7)

    def make(model):
        chosen = []
        for i in range(96):
            prompt = model.chat.prompt((human(f"q{i}"),))
            yes, no = (model.chat.response(f"{word} {i}") for word in ("yes", "no"))
            right = bool(torch.rand((), generator=generator) < 0.75)
            label = 0.75 if kind == "soft" else float(right)
            chosen.append(PairExample(Tree(prompt, [yes, no]), label, 1.0, "helpful"))
        return chosen

    return make


def test_soft_labels_beat_hard_ones_where_labels_are_noisy(hardware, supervised, tmp_path):
    """Truth: yes beats no with probability 0.75, on every prompt."""
    supervised.epochs, supervised.optimizer.lr = 8, 1e-2
    found = {}
    for kind in ("soft", "hard"):
        model, head, _ = train_pm(hardware, pm_settings(supervised), tmp_path, noisy(kind))
        prompts = [model.chat.prompt((human(f"held out {i}"),)) for i in range(24)]
        trees = [
            Tree(p, [model.chat.response("yes 1"), model.chat.response("no 1")]) for p in prompts
        ]
        with model.use("pm"):
            scores = torch.tensor(score_responses(model, head, trees, 4096))
        probabilities = sigmoid((scores[:, 0] - scores[:, 1]).numpy())
        ece = expected_calibration_error(*fold(probabilities, [0.75] * 24))
        found[kind] = (float((scores[:, 0] > scores[:, 1]).float().mean()), ece)
    assert found["soft"][0] >= found["hard"][0]
    assert found["soft"][1] < found["hard"][1]


def gradients(hardware, method):
    """Gradients of one step and what they are of; the base attends with dropout off."""
    model = load_model(tiny_config(), hardware)
    model.add_adapter("a", 1)
    randomise(model, "a")
    with model.use("a"):
        parameters = model.train_only("a")
        if method == "sft":
            packed = pack(examples(model))
            hidden = hidden_states(model.network, packed)
            loss = -response_scores(model.network, hidden, packed).logprobs.mean()
        else:
            packed = pack([pair.tree for pair in pairs(model)])
            hidden = hidden_states(model.network, packed)
            loss = end_scores(ScalarHead(model.hidden_size, 2), hidden, packed).square().mean()
        loss.backward()
    return torch.cat([p.grad.flatten() for p in parameters])


@pytest.mark.parametrize("method", ["sft", "pm"])
def test_activations_computed_twice_give_the_same_gradients(method, monkeypatch):
    whole = gradients(tiny.tiny_hardware(), method)
    calls = []
    original = LlamaMLP.forward
    monkeypatch.setattr(
        LlamaMLP,
        "forward",
        lambda self, *args, **kwargs: calls.append(1) or original(self, *args, **kwargs),
    )
    again = gradients(tiny.tiny_hardware(activation_checkpointing=True), method)
    torch.testing.assert_close(again, whole, atol=1e-6, rtol=0)
    assert len(calls) == 4, "both layers are computed twice"


@pytest.mark.parametrize("method", ["sft", "pm"])
def test_compiled_layers_give_the_same_gradients(method, monkeypatch):
    """Of one graph for all layers and lengths; what only reads runs as it was written."""
    from torch._dynamo.utils import counters

    compiled = torch.nn.Module.compile  # to graphs, but not to machine code, which takes a minute
    monkeypatch.setattr(
        torch.nn.Module,
        "compile",
        lambda self, **options: compiled(self, backend="aot_eager", **options),
    )
    torch._dynamo.reset()
    counters.clear()
    whole = gradients(tiny.tiny_hardware(), method)
    assert not counters["stats"]
    for _ in range(2):
        again = gradients(tiny.tiny_hardware(compile=True), method)
        torch.testing.assert_close(again, whole, atol=1e-6, rtol=1e-4)
    assert 1 <= counters["stats"]["unique_graphs"] <= 4
    model = load_model(tiny_config(), tiny.tiny_hardware(compile=True))
    before = counters["stats"]["unique_graphs"]
    LocalSampler(model).generate(None, [[5, 6, 7]], [0], Sampling(4, 0, 1.0))
    assert counters["stats"]["unique_graphs"] == before


def test_ppo_and_dpo_learn_the_same_with_activations_computed_twice(supervised, tmp_path):
    """The other adapter is active again by the time of the backward pass."""
    import test_dpo
    import test_ppo

    for train_it, name in ((test_ppo.run, "policy"), (test_dpo.train, "policy")):
        found = []
        for flag in (False, True):
            folder = tmp_path / f"{train_it.__module__}-{flag}"
            hardware = tiny.tiny_hardware(activation_checkpointing=flag)
            more = (supervised, folder) if train_it is test_dpo.train else (folder,)
            found.append(weights(train_it(hardware, *more)[0], name))
        torch.testing.assert_close(*found, atol=1e-5, rtol=0)


def test_eight_bits_hold_the_state_in_a_quarter_of_the_memory():
    sizes = {}
    for kind in OptimizerKind:
        parameter = torch.nn.Parameter(torch.ones(512, 512))
        made = adamw(kind, [parameter], lr=1e-2, betas=(0.9, 0.95), weight_decay=0.0)
        parameter.grad = torch.ones(512, 512)
        made.step()
        state = made.state[parameter].values()
        sizes[kind] = sum(x.nbytes for x in state if isinstance(x, torch.Tensor))
        # the first step of Adam is the rate, whatever the gradient, without decay
        if kind is OptimizerKind.adamw:
            assert float(parameter[0, 0].detach()) == pytest.approx(0.99, abs=1e-4)
    for kind in (OptimizerKind.adamw_8bit, OptimizerKind.paged_adamw_8bit):
        assert sizes[kind] < 0.26 * sizes[OptimizerKind.adamw]


@pytest.mark.parametrize("kind", [OptimizerKind.adamw_8bit, OptimizerKind.paged_adamw_8bit])
def test_eight_bits_learn_the_same_preference_and_resume(hardware, supervised, tmp_path, kind):
    supervised.epochs = 6
    _, _, full = train_pm(hardware, pm_settings(supervised), tmp_path / "full")
    supervised.optimizer.kind = kind
    _, _, module = train_pm(hardware, pm_settings(supervised), tmp_path / "small")
    assert module.history[-1]["accuracy"] == full.history[-1]["accuracy"] == 1
    supervised.epochs = 2
    undisturbed, _ = train(hardware, supervised, tmp_path / "..")
    train(hardware, supervised, tmp_path, stop_after=5)
    resumed, _ = train(hardware, supervised, tmp_path)
    assert torch.equal(weights(undisturbed, "a"), weights(resumed, "a"))
