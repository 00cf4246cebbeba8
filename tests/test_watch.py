"""The Goodhart watch tells a fall of the twin from noise."""

import pytest

from cai.dialogue import human
from cai.results.systems import Transcript
from cai.training.watch import overoptimised

TALK = (human("Why?"),)


def rows(scores, twins):
    return [
        Transcript(1, f"p{n}", TALK, "So.", score, twin)
        for n, (score, twin) in enumerate(zip(scores, twins, strict=True))
    ]


BEFORE = rows([0.0] * 4, [1.0, 2.0, 3.0, 4.0])


@pytest.mark.parametrize(
    ("scores", "twins", "expected"),
    [
        # Falls of .9, 1.1, .9, 1.1: mean 1, standard error .0577; far beyond 1.96 of them.
        ([1.0] * 4, [0.1, 0.9, 2.1, 2.9], True),
        # The same fall, but the score of the training PM fell, too: no Goodhart.
        ([-1.0] * 4, [0.1, 0.9, 2.1, 2.9], False),
        # Falls of 5, -4, 5, -4: mean .5, standard error 2.6: noise.
        ([1.0] * 4, [-4.0, 6.0, -2.0, 8.0], False),
        # The twin rises.
        ([1.0] * 4, [2.0, 3.0, 4.0, 5.0], False),
        ([1.0] * 4, [1.0, 2.0, 3.0, 4.0], False),
    ],
)
def test_a_fall_counts_if_it_is_paired_and_significant(scores, twins, expected):
    assert overoptimised(BEFORE, rows(scores, twins)) is expected


def test_a_few_prompts_say_nothing():
    assert not overoptimised(BEFORE[:3], rows([1.0] * 3, [-9.0, -8.0, -7.0]))
