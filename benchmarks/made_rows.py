"""Dialogues of random words, as many turns and words as those of hh-rlhf have."""

from __future__ import annotations

import random
from collections.abc import Sequence

SYLLABLES = (
    "ba",
    "ce",
    "di",
    "fo",
    "gu",
    "ha",
    "je",
    "ki",
    "lo",
    "mu",
    "na",
    "pe",
    "ri",
    "so",
    "tu",
)


def made_words(chance: random.Random) -> list[str]:
    """Make words that look a little like words."""
    return ["".join(chance.choices(SYLLABLES, k=chance.randint(1, 3))) for _ in range(5000)]


def made_pair(chance: random.Random, lexicon: Sequence[str], huge: bool) -> tuple[str, str]:
    """Make a dialogue of one to five questions with two last replies."""

    def said(mean: float) -> str:
        return " ".join(chance.choices(lexicon, k=max(2, int(chance.expovariate(1 / mean)))))

    talk = f"\n\nHuman: {said(4000 if huge else 20)}"
    for _ in range(chance.choices(range(5), (30, 30, 20, 12, 8))[0]):
        talk += f"\n\nAssistant: {said(45)}\n\nHuman: {said(15)}"
    return talk + f"\n\nAssistant: {said(45)}", talk + f"\n\nAssistant: {said(45)}"
