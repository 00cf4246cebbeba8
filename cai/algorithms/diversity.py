"""How much the replies of one system differ from each other, as against mode collapse.

All measures depend on how many texts there are and how long they are: compare systems on equally
many replies to the same prompts, and look at the lengths beside them.
"""

from __future__ import annotations

import math
import random
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

NGram = tuple[str, ...]

_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")


class _Ceiling(NamedTuple):
    """The largest count of an n-gram in any text, which text that is, and the next largest."""

    most: int
    owner: int
    second: int


def words(text: str) -> list[str]:
    """Split into lower-case words; punctuation is left out, an inner apostrophe kept."""
    return _WORD.findall(text.lower())


def word_counts(texts: Sequence[str]) -> list[int]:
    """Length of each text in words."""
    return [len(words(text)) for text in texts]


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Distinct n-grams over all n-grams of all texts (Li et al. 2016); 0 if there are none."""
    counts: Counter[NGram] = Counter()
    for text in texts:
        counts.update(_ngrams(words(text), n))
    return len(counts) / max(1, counts.total())


def self_bleu(texts: Sequence[str], order: int = 4, limit: int = 500, seed: int = 0) -> float:
    """Mean BLEU of each text against all the others (Zhu et al. 2018); 1: all alike.

    Args:
        texts: Replies of one system, at least two.
        order: Longest n-gram.
        limit: If there are more texts, this many are drawn; more references find more matches, so
            the limit also makes sets of different size comparable.
        seed: Of the draw.
    """
    tokens = [words(text) for text in _draw(texts, limit, seed)]
    counts = [_all_ngrams(text, order) for text in tokens]
    lengths = sorted(map(len, tokens))
    ceilings = _ceilings(counts)
    total = 0.0
    for own, (text, grams) in enumerate(zip(tokens, counts, strict=True)):
        others = {gram: _without(ceilings[gram], own) for gram in grams}
        place = bisect_left(lengths, len(text))
        total += _bleu(text, others, lengths[:place] + lengths[place + 1 :], order)
    return total / len(tokens)


def self_similarity(texts: Sequence[str], n: int = 2, limit: int = 300, seed: int = 0) -> float:
    """Mean over pairs of texts of |A and B| / |A or B|, A and B their sets of n-grams (Jaccard).

    Args:
        texts: Replies of one system, at least two; a pair without any n-gram counts as alike.
        n: Length of the n-grams.
        limit: If there are more texts, this many are drawn.
        seed: Of the draw.
    """
    sets = [set(_ngrams(words(text), n)) for text in _draw(texts, limit, seed)]
    overlaps = [len(a & b) / len(a | b) if a | b else 1.0 for a, b in combinations(sets, 2)]
    return math.fsum(overlaps) / len(overlaps)


def _draw(texts: Sequence[str], limit: int, seed: int) -> Sequence[str]:
    if len(texts) < 2 or limit < 2:
        raise ValueError(f"texts are compared with each other: {len(texts)}, limit {limit}")
    return texts if len(texts) <= limit else random.Random(seed).sample(texts, limit)


def _ngrams(tokens: Sequence[str], n: int) -> list[NGram]:
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def _all_ngrams(tokens: Sequence[str], order: int) -> Counter[NGram]:
    return Counter(gram for n in range(1, order + 1) for gram in _ngrams(tokens, n))


def _bleu(
    candidate: Sequence[str], most: Mapping[NGram, int], lengths: Sequence[int], order: int
) -> float:
    """BLEU given the largest count of each n-gram in a reference, and the sorted lengths."""
    logs = 0.0
    for n in range(1, order + 1):
        grams = Counter(_ngrams(candidate, n))
        matched = sum(min(count, most.get(gram, 0)) for gram, count in grams.items())
        if n == 1 and not matched:
            return 0.0
        extra = int(n > 1)
        logs += math.log((matched + extra) / (grams.total() + extra))
    nearest = min(lengths, key=lambda length: abs(length - len(candidate)))
    return math.exp(min(0.0, 1 - nearest / len(candidate)) + logs / order)


def _ceilings(counts: Sequence[Counter[NGram]]) -> dict[NGram, _Ceiling]:
    """What each n-gram may be matched with; two largest counts suffice to leave any one text out.

    This makes self-BLEU linear in the number of texts.
    """
    ceilings: dict[NGram, _Ceiling] = {}
    for owner, grams in enumerate(counts):
        for gram, count in grams.items():
            old = ceilings.get(gram, _Ceiling(0, -1, 0))
            if count > old.most:
                ceilings[gram] = _Ceiling(count, owner, old.most)
            elif count > old.second:
                ceilings[gram] = old._replace(second=count)
    return ceilings


def _without(ceiling: _Ceiling, text: int) -> int:
    return ceiling.second if ceiling.owner == text else ceiling.most
