"""Calibration of labels: the temperature by hand, and what it does to a label."""

import math

import pytest
from hydra import compose, initialize_config_dir

from cai.composition import CONF, typed
from cai.config import ComparisonPrinciple
from cai.data.records import Comparison, Prompt
from cai.dialogue import human
from cai.labelling.answers import Answer
from cai.labelling.judge import Judge
from cai.labelling.labels import cooled

with initialize_config_dir(str(CONF), version_base="1.3"):
    FEEDBACK = typed(compose("config", overrides=["model=tiny", "stage=feedback"])).feedback


class Sure:
    """Gives the reply that holds the word its probability, whatever the order."""

    def __init__(self, word, probability):
        self.word, self.probability = word, probability

    def ask(self, questions):
        first = [self.word in question.replies[0] for question in questions]
        return [Answer([self.probability if x else 1 - self.probability], 1) for x in first]


def known(n):
    return [
        Comparison(Prompt(f"p{i}", "x", (human(f"q{i}"),)), "good", "bad", 1.0, "harmless")
        for i in range(n)
    ]


def judge(answerer):
    rules = [ComparisonPrinciple("kind", "Choose the kinder reply.", "Choose the crueller one.")]
    return Judge(answerer, rules, FEEDBACK, 0)


def test_the_temperature_by_hand():
    labeller = judge(Sure("good", 0.6))
    labeller.calibrate(known(2))
    # Two right answers: the target is 3/4, so ln(1.5) / T = ln 3.
    assert labeller.temperature == pytest.approx(math.log(1.5) / math.log(3), rel=1e-6)
    [verdict] = labeller.judge(known(1))
    assert verdict.probability == pytest.approx(0.75, abs=1e-6)
    assert verdict.label == pytest.approx(0.75, abs=1e-6)


def test_who_is_wrong_as_often_as_right_becomes_unsure():
    labeller = judge(Sure("p", 0.9))  # neither reply holds it, so it says .1 in both orders
    labeller.calibrate(known(4))
    [verdict] = labeller.judge(known(1))
    assert verdict.probability == pytest.approx(0.5, abs=1e-6)


def test_who_is_wrong_is_not_trusted_and_not_turned_round():
    labeller = judge(Sure("bad", 0.8))
    labeller.calibrate(known(6))
    [verdict] = labeller.judge(known(1))
    assert 0.45 < verdict.probability < 0.5


def test_more_right_answers_make_surer_and_none_change_nothing():
    few, many, none = (judge(Sure("good", 0.6)) for _ in range(3))
    few.calibrate(known(2))
    many.calibrate(known(30))
    none.calibrate([])
    assert many.temperature < few.temperature < 1 == none.temperature
    assert cooled(0.3, 1.0) == 0.3
    # ln(3/7) / 0.5 = ln(9/49), so 9/58.
    assert cooled(0.3, 0.5) == pytest.approx(9 / 58)
