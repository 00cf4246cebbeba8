"""The label report: every figure by hand."""

import math

import pytest

from cai.data.records import Comparison, Prompt
from cai.dialogue import human
from cai.jsonl import to_json
from cai.labelling.answers import Verdict
from cai.labelling.judge import Judge
from cai.labelling.report import label_report, position_bias
from cai.results.common import ReliabilityBin
from cai.results.labels import (
    Agreement,
    KnownAnswers,
    LabelCost,
    LabelledPair,
    Opinion,
    PrincipleUse,
)


def comparison(name):
    return Comparison(Prompt(name, "law", (human("How?"),)), "good", "bad", 1.0, "harmless")


def row(name, probability, label=None, unreadable=0, **opinions):
    return LabelledPair(
        prompt_id=name,
        messages=(human("How?"),),
        a="good",
        b="bad",
        probability=probability,
        label=probability if label is None else label,
        unreadable=unreadable,
        questions=4,
        tokens=100,
        opinions=[Opinion(key, forward, backward) for key, (forward, backward) in opinions.items()],
    )


def test_position_bias_by_hand():
    rows = [row("a", 0.65, x=([0.9], [0.6])), row("b", 0.5, x=([0.4, 0.8], [0.7]))]
    # Shown first got 0.9, 0.6, (0.4 + 0.8) / 2 and 0.7.
    assert position_bias(rows) == pytest.approx((0.9 + 0.6 + 0.6 + 0.7) / 4)
    assert position_bias([row("a", 0.9, x=([0.9], []))]) is None
    assert position_bias([]) is None


class Told(Judge):
    """Gives the probabilities that it was told, in the order in which it is asked."""

    def __init__(self, *probabilities):
        self.probabilities = probabilities
        self.temperature = 1.0
        self.asked = []

    def judge(self, comparisons):
        self.asked += comparisons
        return [Verdict(p, p) for p in self.probabilities[: len(comparisons)]]


ROWS = [
    row("a", 0.8, x=([0.9], [0.2]), y=([0.8], [0.3])),  # x 0.85, y 0.75
    row("b", 0.425, x=([0.7], [0.3]), y=([0.2], [0.9])),  # x 0.7, y 0.15: x goes against it
    row("c", None, unreadable=3, x=([0.9], []), y=([], [])),
    row("d", 0.52, x=([0.5], [0.5]), y=([0.54], [0.46])),  # x is a tie, y 0.54
    row("e", 0.1, unreadable=1, x=([0.1], [0.9]), y=([0.9], [])),  # y was left out
]


def test_the_figures_of_labels_by_hand():
    found = label_report(Told(), ROWS, [])
    assert (found.labels, found.dropped, found.unreadable) == (4, 1, 4)
    assert found.undecided == 1 / 4  # d; b is 0.075 from one half
    assert found.entropy == pytest.approx(
        -sum(p * math.log(p) + (1 - p) * math.log(1 - p) for p in (0.8, 0.425, 0.52, 0.1)) / 4
    )
    assert found.cost == LabelCost(questions=20, tokens=500)
    first_place = [0.9, 0.2, 0.8, 0.3, 0.7, 0.3, 0.2, 0.9, 0.5, 0.5, 0.54, 0.46, 0.1, 0.9]
    assert found.position_bias == pytest.approx(sum(first_place) / 14)
    assert found.principles == [
        PrincipleUse(id="x", n=4, flips=1, flipped=["b"]),
        PrincipleUse(id="y", n=3, flips=0, flipped=[]),
    ]
    # Both chose on a and on b, and agreed on a.
    assert found.agreement == Agreement(ids=["x", "y"], matrix=[[1.0, 0.5], [0.5, 1.0]])
    assert "accuracy" not in to_json(found)


def test_the_test_on_known_answers_by_hand():
    known = [comparison(f"k{n}") for n in range(5)]
    judge = Told(0.15, 0.85, 0.65, 0.5, None)
    found = label_report(judge, [], known)
    # Every other one is shown with the better reply second, beginning with the first.
    assert [c.probability for c in judge.asked] == [0.0, 1.0, 0.0, 1.0, 0.0]
    assert [c.a for c in judge.asked[:2]] == [known[0].b, known[1].a]
    assert (found.known, found.known_unreadable) == (4, 1)
    assert found.accuracy == (1 + 1 + 0 + 0.5) / 4
    # Folded: 0.85 right, 0.85 right, 0.65 wrong, 0.5 right half the time.
    assert found.ece == pytest.approx((2 * 0.15 + 0.65 + 0) / 4)
    assert found.reliability == [
        ReliabilityBin(n=1, confidence=0.5, frequency=0.5),
        ReliabilityBin(n=1, confidence=0.65, frequency=0.0),
        ReliabilityBin(n=2, confidence=0.85, frequency=1.0),
    ]
    assert found.entropy is found.undecided is None
    assert found.other == KnownAnswers(0)
    assert to_json(found)["other"] == {"known_unreadable": 0}


def test_other_kinds_are_counted_apart():
    known, other = [comparison(f"known {n}") for n in range(3)], [comparison("other")]
    found = label_report(Told(0.85, 0.85, 0.85), [], known, other)
    # The first of each is shown with the better reply second, so that 0.85 is wrong there.
    assert found.accuracy == pytest.approx(1 / 3)
    assert (found.other.accuracy, found.other.known) == (0.0, 1)


def test_a_labeller_that_says_nothing_of_known_answers():
    found = label_report(Told(None, None), [], [comparison("a"), comparison("b")])
    assert found.known_unreadable == 2
    assert "accuracy" not in to_json(found)
