import math
import random
import time

import pytest

from cai.algorithms.diversity import (
    bleu,
    distinct_n,
    self_bleu,
    self_similarity,
    word_counts,
    words,
)


def babble(number, length, seed=0, vocabulary=30):
    draw = random.Random(seed)
    return [
        " ".join(f"w{draw.randrange(vocabulary)}" for _ in range(draw.randint(1, length)))
        for _ in range(number)
    ]


def test_words():
    assert words("Don't panic -- it\u2019s ONLY 42, na\u00efvet\u00e9!") == [
        "don't",
        "panic",
        "it\u2019s",
        "only",
        "42",
        "na\u00efvet\u00e9",
    ]
    assert word_counts(["one two", "", "..."]) == [2, 0, 0]


def test_distinct_n_by_hand():
    # a b a | b a: words 5, of which 2; bigrams ab ba ba, 3, of which 2.
    texts = ["A b a.", "b a"]
    assert distinct_n(texts, 1) == 2 / 5
    assert distinct_n(texts, 2) == 2 / 3
    assert distinct_n(texts, 4) == 0
    assert distinct_n(["a b c"] * 5, 1) == 3 / 15


def test_bleu_by_hand():
    # Candidate: the the cat sat (4). Reference: the cat sat down now (5).
    # p1 = 3/4 ("the" counts once); p2 = (2 + 1) / (3 + 1); brevity exp(1 - 5/4).
    found = bleu("the the cat sat", ["the cat sat down now"], order=2)
    assert found == pytest.approx(math.exp(-0.25) * math.sqrt(3 / 4 * 3 / 4), rel=1e-13)
    # A second reference with "the the" raises the clip: p1 = 4/4, p2 = (3 + 1) / (3 + 1); its
    # length 2 and the other's 5 lie 2 and 1 from 4, so the brevity stays.
    found = bleu("the the cat sat", ["the cat sat down now", "the the"], order=2)
    assert found == pytest.approx(math.exp(-0.25), rel=1e-13)


def test_bleu_at_its_ends():
    assert bleu("a b c d e", ["x", "a b c d e"]) == pytest.approx(1, rel=1e-13)
    assert bleu("a b", ["c d"]) == 0
    assert bleu("", ["c d"]) == 0
    assert bleu("a", ["a"]) == 1
    # Counts are clipped per reference, not added up: p1 = 1/2, longer than both.
    assert bleu("a a", ["a", "a"], order=1) == pytest.approx(0.5, rel=1e-13)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_self_bleu_by_definition(order):
    texts = ["", "w1 w1 w1", "w1 w1 w1", *babble(25, 12, vocabulary=6)]
    expected = [bleu(text, texts[:i] + texts[i + 1 :], order=order) for i, text in enumerate(texts)]
    found = self_bleu(texts, order=order)
    assert found == pytest.approx(sum(expected) / len(texts), rel=1e-12)


def test_self_similarity_by_hand():
    # Bigrams {ab, bc}, {ab, bd}, {}: overlaps 1/3, 0, 0.
    assert self_similarity(["a b c", "a b d", "a"]) == pytest.approx(1 / 9, rel=1e-13)
    # Words {a, b, c}, {a, b, d}, {a}: 2/4, 1/3, 1/3.
    assert self_similarity(["a b c", "a b d", "a"], n=1) == pytest.approx(7 / 18, rel=1e-13)
    assert self_similarity(["a", "b"]) == 1


def test_collapse_shows():
    varied, collapsed = babble(60, 30), ["I am so sorry that you feel this way"] * 60
    assert distinct_n(collapsed, 2) < distinct_n(varied, 2)
    assert self_bleu(collapsed) == pytest.approx(1)
    assert self_bleu(varied) < 0.5
    assert self_similarity(collapsed) == 1 > self_similarity(varied)


@pytest.mark.parametrize("measure", [self_bleu, self_similarity])
def test_limit_and_seed(measure):
    texts = babble(50, 20, vocabulary=8)
    base = measure(texts, limit=10)
    assert base == measure(texts, limit=10)
    assert base != measure(texts, limit=10, seed=1)
    assert base != measure(texts, limit=20)
    assert measure(texts, limit=50) == measure(texts, limit=51, seed=9)


@pytest.mark.parametrize("measure", [self_bleu, self_similarity])
def test_one_text_cannot_be_compared(measure):
    with pytest.raises(ValueError, match="compared with each other: 1"):
        measure(["a"])


def test_self_bleu_of_500_replies_takes_seconds():
    texts = babble(2000, 250, vocabulary=2000)
    start = time.perf_counter()
    self_bleu(texts)
    self_similarity(texts)
    assert time.perf_counter() - start < 10
