"""Absolute harmfulness from ratings: by hand, by definition, and what is refused."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from tiny import randomise, tiny_trainer, train

from cai.algorithms.regression import rank_correlation, root_mean_square_error
from cai.composition import CONF, typed
from cai.contracts.policies import Evaluation
from cai.contracts.table import stages
from cai.data.attempts import Attempt
from cai.data.records import Prompt
from cai.dialogue import assistant, human
from cai.errors import UserError
from cai.evaluation.harmfulness import (
    PROMPTS,
    Harmfulness,
    RatedData,
    rated_tree,
    train_regressor,
    validate,
)
from cai.evaluation.systems import Context, System
from cai.lm.heads import ScalarHead
from cai.lm.load import load_model
from cai.lm.packing import Tree
from cai.pipeline.stage import Job
from cai.results.systems import Reply
from cai.tracking import Tracker
from cai.training.data import Order
from cai.training.regression import RatedTree, RegressionModule, Regressor
from cai.training.rollouts import ended

TOUR = ("stage=evaluate", "model=tiny", "scale=tour", "tracking=off", "hardware=cpu",
        "hardware.threads=1")  # fmt: skip


def config(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return typed(compose("config", overrides=[*TOUR, *overrides]))


def settings(*overrides):
    return stages()["evaluate"].read(config(*overrides))


# Numbers


def test_errors_and_ranks_by_hand():
    assert root_mean_square_error([1, 2, 3], [1, 4, 0]) == pytest.approx(math.sqrt(13 / 3))
    # Ranks 1 2 3 4 and 1 2.5 2.5 4: the products of their distances from 2.5 add up to 4.5.
    assert rank_correlation([0.1, 0.5, 0.6, 9], [0, 1, 1, 3]) == pytest.approx(
        4.5 / math.sqrt(22.5)
    )
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert math.isnan(rank_correlation([1, 2], [2, 2]))
    with pytest.raises(ValueError, match="shapes"):
        rank_correlation([1, 2], [1])


def test_ranks_depend_on_the_order_alone():
    values = np.random.default_rng(0).normal(size=50).round(1)
    other = np.random.default_rng(1).normal(size=50).round(1)
    before = rank_correlation(values, other)
    assert rank_correlation(np.exp(values), other**3) == pytest.approx(before)
    places = [[(x < v).sum() + ((x == v).sum() + 1) / 2 for v in x] for x in (values, other)]
    assert before == pytest.approx(np.corrcoef(*places)[0, 1])  # by counting, ties in the middle


def row(transcript, rating):
    return {"transcript": transcript, "rating": rating}


def write(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


# Training


def rated(model, n, seed=0):
    """Return conversations of which those that say "bomb" were rated 4 and the others 0."""
    word = ("No, I will not.", "Yes, the bomb is easy.")
    attempts = [
        Attempt((human(f"Question {seed}.{k}?"), assistant(word[k % 2])), 4.0 * (k % 2))
        for k in range(n)
    ]
    return [rated_tree(model, attempt) for attempt in attempts]


def regressor_of(model, rows, seed=None):
    head = ScalarHead(model.hidden_size, seed)
    return Regressor("harmfulness", head, sum(r.rating for r in rows) / len(rows))


def trained(model, rows, settings, tmp_path, tokens=2048):
    model.add_adapter("harmfulness", 7)
    regressor = regressor_of(model, rows)
    with model.use("harmfulness"):
        module = RegressionModule(model, regressor, rows, settings, Order(tokens, 0))
        train(module, tmp_path)
    return regressor, module.history


def test_a_prediction_is_the_mean_plus_what_the_head_reads(tiny):
    rows = rated(tiny, 4)
    tiny.add_adapter("harmfulness", 7)
    randomise(tiny, "harmfulness")
    trees = [r.tree for r in rows]
    assert regressor_of(tiny, rows).predict(tiny, trees, 2048) == [2.0] * 4  # the head is zero
    found = regressor_of(tiny, rows, seed=1).predict(tiny, trees, 2048)
    [tree] = trees[:1]
    with tiny.use("harmfulness") as network, torch.no_grad():
        ids = torch.tensor([[*tree.prompt, *tree.responses[0]]])
        hidden = network(ids, output_hidden_states=True).hidden_states[-1][0, -1]
    by_hand = 2.0 + float(ScalarHead(tiny.hidden_size, 1)(hidden).detach())
    assert found[0] == pytest.approx(by_hand, abs=1e-5)
    assert abs(found[0] - 2) > 1e-3


def test_the_loss_is_the_mean_square_and_does_not_depend_on_micro_batches(
    tiny, hardware, supervised, tmp_path
):
    rows = [*rated(tiny, 3), RatedTree(rated(tiny, 1)[0].tree, 1.0)]  # ratings 0, 4, 0, 1
    supervised.batch_size = 4
    _, history = trained(tiny, rows, supervised, tmp_path)
    # The mean is 1.25: (1.5625 + 7.5625 + 1.5625 + 0.0625) / 4.
    assert history[0]["loss"] == pytest.approx(2.6875)
    other = load_model(tiny.config, hardware)
    _, small = trained(other, rows, supervised, tmp_path, tokens=1)
    assert [r["loss"] for r in small] == pytest.approx([r["loss"] for r in history], rel=1e-4)


def test_it_learns_to_tell_harm_on_conversations_it_has_not_seen(tiny, supervised, tmp_path):
    supervised.epochs, supervised.batch_size = 6, 8
    rows = rated(tiny, 24)
    regressor, history = trained(tiny, rows, supervised, tmp_path)
    assert history[-1]["loss"] < 0.3 * history[0]["loss"]
    data = RatedData.__new__(RatedData)
    data.train, data.held_out, data.too_long = rows, rated(tiny, 10, seed=1), 0
    data.families = [str(n) for n in range(10)]
    found = validate(tiny, regressor, data, 2048)
    assert found.error_of_the_mean == pytest.approx(2.0)
    assert found.error.value < 1.0
    assert found.rank_correlation.value > 0.8
    assert found.rank_correlation.low <= found.rank_correlation.value
    predicted = [p.predicted for p in found.predictions]
    truth = [p.rating for p in found.predictions]
    assert found.error.value == pytest.approx(root_mean_square_error(predicted, truth), abs=1e-3)


def many(n, rating=lambda k: k % 5):
    return [row(f"\n\nHuman: Question {k}?\n\nAssistant: Reply {k}.", rating(k)) for k in range(n)]


def test_ratings_are_divided_by_how_conversations_begin(tiny, tmp_path):
    rows = many(60) + [row(f"\n\nHuman: question {k}!\n\nAssistant: Else.", 1) for k in range(60)]
    rows.append(row("\n\nHuman: " + "long " * 3000 + "\n\nAssistant: No.", 4))
    path = write(tmp_path / "a.jsonl", rows)
    data = RatedData(settings("evaluate.harmfulness.rows=null"), path, tiny)
    assert data.too_long == 1
    assert len(data.train) + len(data.held_out) == 120
    assert len(data.held_out) % 2 == 0  # both conversations with one opening are on one side
    assert len(set(data.families)) == len(data.held_out) / 2
    assert 6 <= len(data.held_out) <= 50
    fewer = RatedData(settings("evaluate.harmfulness.rows=40"), path, tiny)
    assert len(fewer.train) + len(fewer.held_out) + fewer.too_long == 40


def test_too_few_ratings_are_said(tiny, tmp_path):
    path = write(tmp_path / "a.jsonl", [row("\n\nHuman: How?\n\nAssistant: So.", 3)] * 3)
    with pytest.raises(UserError, match=r"leaves no conversation on the (train|held-out) side"):
        RatedData(settings(), path, tiny)


def test_a_finished_regressor_is_loaded_and_not_trained_again(tiny, hardware, tmp_path):
    path = write(tmp_path / "a.jsonl", many(40))
    chosen, out = (
        settings("evaluate.harmfulness.optimizer.lr=0.01"),
        Evaluation("evaluate", "0", tmp_path),
    )
    data = RatedData(chosen, path, tiny)
    job = Job(hardware, tiny_trainer(), Tracker("evaluate", tmp_path))
    first = train_regressor(Context(chosen, hardware, tiny, []), data, out, job)
    folder = tmp_path / "harmfulness"
    names = {p.name for p in folder.iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors", "history.jsonl",
                     "metrics.json"}  # fmt: skip
    metrics = out.regressor_metrics.read()
    assert metrics.trained_on == len(data.train)
    assert metrics.mean == pytest.approx(sum(r.rating for r in data.train) / len(data.train))
    history = (folder / "history.jsonl").read_text()
    other = load_model(tiny.config, hardware)
    again = train_regressor(Context(chosen, hardware, other, []), data, out, job)
    assert (folder / "history.jsonl").read_text() == history
    trees = [r.tree for r in data.held_out]
    before, after = (r.predict(m, trees, 2048) for r, m in ((first, tiny), (again, other)))
    assert after == pytest.approx(before, abs=1e-6)
    assert len(set(before)) > 1


# Measuring


class ByLength:
    """Rates a reply by its number of tokens, and keeps what it was shown."""

    def __init__(self):
        self.seen = []

    def predict(self, model, trees, tokens):
        self.seen += trees
        return [float(len(tree.responses[0])) for tree in trees]


def sampled(system, prompt, text, kind="red_team", sample=0):
    return Reply(
        system=system, set=kind, prompt_id=prompt.id, kind=prompt.kind, sample=sample,
        messages=(human("Q"),), response=text, tokens=list(text.encode()), style="compliance",
        refusal=False, evasive=False, boilerplate=False,
    )  # fmt: skip


def test_harmfulness_is_the_mean_over_the_first_prompts_and_greedy_ones(tiny, hardware, tmp_path):
    tiny.add_adapter("a", 0)
    randomise(tiny, "a", std=0.3)
    systems = [System("base", "m0", None), System("a", "m1", "a"), System("best", "m2", None, 4)]
    prompts = [Prompt(f"p{n}", "k", (human(f"Q{n}?"),)) for n in range(PROMPTS + 1)]
    rows = [sampled(s.name, p, "abc" if p.id == "p0" else "a", sample=k)
            for s in systems for p in prompts for k in range(2)]  # fmt: skip
    rows.append(sampled("base", prompts[0], "abcdef", kind="helpful"))
    judge, out = ByLength(), Evaluation("evaluate", "0", tmp_path)
    context = Context(settings("evaluate.reply_tokens=3"), hardware, tiny, systems)
    measured, found = Harmfulness(context, judge).measure(rows, prompts, out)
    # Of 64 prompts one has 3 tokens and the others 1; the stop token is added to each.
    mean = (64 + 2) / 64 + 1
    for system in systems:
        assert found[system.name]["absolute_harmfulness"].value == pytest.approx(mean)
        assert found[system.name]["absolute_harmfulness"].low == pytest.approx(2)
    assert all(tree.responses[0][-1] == tiny.chat.stop_id for tree in judge.seen)
    greedy = out.greedy.read()
    assert [(r.system, r.prompt_id) for r in greedy] == [
        (name, p.id) for name in ("base", "a") for p in prompts[:PROMPTS]
    ]
    assert all(r.tokens is None for r in greedy)
    assert found["best"]["absolute_harmfulness_greedy"].value is None
    for name in ("base", "a"):
        values = [r.harmfulness for r in greedy if r.system == name]
        mean_of_greedy = found[name]["absolute_harmfulness_greedy"].value
        assert mean_of_greedy == pytest.approx(sum(values) / 64)
    # What is beyond the 64th prompt, or of another set, is not even looked at.
    assert len(judge.seen) == 3 * PROMPTS * 2 + 2 * PROMPTS
    assert [replace(r, harmfulness=None) for r in measured] == rows
    for row in measured:
        looked_at = row.set == "red_team" and row.prompt_id != prompts[PROMPTS].id
        assert row.harmfulness == (len(row.tokens) + 1 if looked_at else None)
    texts = {r.system: r.response for r in greedy if r.prompt_id == "p1"}
    assert texts["base"] != texts["a"]
    for name, adapter in (("base", None), ("a", "a")):
        assert texts[name] == likeliest(tiny, adapter, prompts[1].conversation, 3)


def likeliest(model, adapter, talk, n):
    """Take the likeliest token n times, the first of which may not end the reply."""
    prompt, taken = model.chat.prompt(talk), []
    while len(taken) < n and model.chat.stop_id not in taken:
        with model.use(adapter) as network, torch.no_grad():
            logits = network(torch.tensor([[*prompt, *taken]])).logits[0, -1]
        if not taken:
            logits[sorted(model.stop_ids)] = -math.inf
        taken.append(int(logits.argmax()))
    return model.chat.decode(taken)


def test_a_reply_that_was_cut_off_is_read_as_ended(tiny):
    assert ended(Tree([1], [[5, 6]]), tiny.chat).responses == [[5, 6, 2]]
    assert ended(Tree([1], [[5, 2]]), tiny.chat).responses == [[5, 2]]
    assert ended(Tree([1], [[]]), tiny.chat).responses == [[2]]
