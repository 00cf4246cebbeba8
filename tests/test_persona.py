"""Persona consistency: by hand, by definition, and what is refused."""

import json
import math

import pytest
from hydra import compose, initialize_config_dir
from tiny import randomise

from cai.composition import CONF, typed
from cai.contracts.policies import Evaluation
from cai.contracts.table import stages
from cai.data.persona import read_persona
from cai.errors import UserError
from cai.evaluation.persona import OPENING, Stances, measure_persona, stances
from cai.evaluation.systems import Context, System
from cai.lm.packing import Tree
from cai.lm.score import token_logprobs


def test_consistency_and_sycophancy_by_hand():
    swayed = Stances(neutral=0.6, favoured=0.9, opposed=0.1)
    assert swayed.consistency == pytest.approx(1 - (0.3 + 0.5) / 2)
    assert swayed.sycophancy == pytest.approx((0.3 + 0.5) / 2)
    contrary = Stances(0.5, 0.3, 0.7)
    assert contrary.consistency == pytest.approx(0.8)
    assert contrary.sycophancy == pytest.approx(-0.2)
    assert Stances(0.4, 0.4, 0.4) == (0.4, 0.4, 0.4)
    assert Stances(0.4, 0.4, 0.4).consistency == 1
    assert Stances(0.0, 1.0, 1.0).consistency == 0
    assert Stances(0.0, 1.0, 1.0).sycophancy == 0  # both views push the same way


def test_stances_are_the_probabilities_of_the_whole_answers(tiny):
    tiny.add_adapter("a", 0)
    randomise(tiny, "a", std=0.3)
    questions = read_persona()[:2]
    talks = [talk for q in questions for talk in (q.neutral, q.favoured, q.opposed)]
    options = tiny.chat.options([" yes", " no"])
    trees = [Tree(tiny.chat.prompt(talk, OPENING), options) for talk in talks]
    for adapter in (None, "a"):
        with tiny.use(adapter) as network:
            scores = token_logprobs(network, trees, 4096)
        by_hand = [1 / (1 + math.exp(float(no.sum() - yes.sum()))) for yes, no in scores]
        found = [p for stance in stances(tiny, adapter, questions) for p in stance]
        assert found == pytest.approx(by_hand, abs=1e-5)
    assert stances(tiny, "a", questions) != stances(tiny, None, questions)


def test_every_system_but_best_of_n_is_asked(tiny, hardware, tmp_path):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = typed(compose("config", overrides=["model=tiny", "stage=evaluate"]))
    systems = [System("base", "m0", None), System("best", "m2", None, 4)]
    questions = read_persona()[:3]
    out = Evaluation("evaluate", "0", tmp_path)
    context = Context(stages()["evaluate"].read(config), hardware, tiny, systems)
    found = measure_persona(context, questions, out)
    rows = out.stances.read()
    assert [(r.system, r.id) for r in rows] == [("base", q.id) for q in questions]
    values = [Stances(r.neutral, r.favoured, r.opposed) for r in rows]
    metric = found["base"]["persona_consistency"]
    assert metric.value == pytest.approx(sum(v.consistency for v in values) / 3)
    assert metric.low <= metric.value <= metric.high
    assert found["base"]["sycophancy"].value == pytest.approx(sum(v.sycophancy for v in values) / 3)
    assert found["best"] == {}


def test_the_built_in_questions_are_whole():
    questions = read_persona()
    assert len(questions) == 20
    assert len({q.id for q in questions}) == len({q.neutral for q in questions}) == 20
    for question in questions:
        [asked] = question.neutral
        assert question.options == ("yes", "no")
        assert asked.text.endswith("? Please answer with yes or no.")
        for [with_view] in (question.favoured, question.opposed):
            assert with_view.text.endswith(f". {asked.text}")
            assert with_view.text != asked.text
        assert question.favoured != question.opposed


GOOD = {"id": "p", "messages": [{"role": "user", "content": "Is it?"}], "for": "It is.",
        "against": "It is not.", "options": ["yes", "no"]}  # fmt: skip


@pytest.mark.parametrize(
    "change, said",
    [
        ({"for": ""}, "'for' should be a text"),
        ({"options": ["yes", "yes"]}, "two different answers"),
        ({"options": ["yes", 1]}, "'options' should be a text"),
        ({"messages": []}, "no turns"),
        ({"id": None}, "'id' should be a text"),
    ],
)
def test_a_bad_question_is_named_by_file_and_line(tmp_path, change, said):
    path = tmp_path / "persona.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n{json.dumps({**GOOD, **change})}\n")
    with pytest.raises(UserError, match=said) as caught:
        read_persona(path)
    assert "persona.jsonl:2" in str(caught.value)
