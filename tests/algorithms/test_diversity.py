import math
import random
import time
from collections import Counter

import pytest

from cai.algorithms.diversity import (
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


def ngrams(tokens, n):
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def bleu(candidate, references, order):
    """Papineni et al. 2002, with one added to matches and n-grams for n > 1."""
    said, others = words(candidate), [words(text) for text in references]
    if not said:
        return 0
    product = 1
    for n in range(1, order + 1):
        own = ngrams(said, n)
        matched = sum(min(own[g], max(ngrams(o, n)[g] for o in others)) for g in own)
        product *= (matched + (n > 1)) / (own.total() + (n > 1))
    nearest = min(map(len, others), key=lambda length: (abs(length - len(said)), length))
    return min(1, math.exp(1 - nearest / len(said))) * product ** (1 / order)


def test_self_bleu_by_hand():
    # the the cat sat (4) against the cat sat down now (5): p1 = 3/4 ("the" counts once),
    # p2 = (2 + 1) / (3 + 1), brevity exp(1 - 5/4). The other way round: p1 = 3/5,
    # p2 = (2 + 1) / (4 + 1), longer than its reference.
    found = self_bleu(["the the cat sat", "the cat sat down now"], order=2)
    one, other = math.exp(-0.25) * math.sqrt(3 / 4 * 3 / 4), math.sqrt(3 / 5 * 3 / 5)
    assert found == pytest.approx((one + other) / 2, rel=1e-13)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_self_bleu_by_definition(order):
    texts = ["", "w1 w1 w1", "w1 w1 w1", *babble(25, 12, vocabulary=6)]
    expected = [bleu(text, texts[:i] + texts[i + 1 :], order) for i, text in enumerate(texts)]
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
