"""Which of two options a server's reply chooses, and how surely."""

from __future__ import annotations

import math
import re

from cai.constitution.prompts import OPTIONS
from cai.labelling.reply import ServerReply

MOST_UNLISTED = 0.01
"""How far an option that is not among the listed tokens may move a probability."""
MOST_PLACES = 64
"""Tokens within which a reply must have named its option."""

_OPENING = r"(?:(?:So )?[Tt]he (?:correct )?answer is|Answer|Option)?"
_FILLER = r"[\s*_:\"'`]*+"  # possessive: a reply of nothing but blanks is read once, not squared
_CHOICE = re.compile(
    rf"{_FILLER}{_OPENING}{_FILLER}"
    rf"(?:\(([{''.join(OPTIONS)}])(?![A-Za-z])|([{''.join(OPTIONS)}])(?=[).,:;*_\"'`]|\s*$|\s*\n))"
)


def read_choice(text: str, *, bare: bool = True) -> int | None:
    """Return the index of the option that a text begins with, None if it is not clear.

    Args:
        text: A reply or its beginning.
        bare: Whether a letter without a bracket before it will do.
    """
    found = _CHOICE.match(text)
    if found is None or (found.group(2) and not bare):
        return None
    chosen = OPTIONS.index(found.group(1) or found.group(2))
    return None if f"({OPTIONS[1 - chosen]})" in text else chosen


def first_option_probability(reply: ServerReply) -> float | None:
    r"""Return the probability of the first option, normalised over both.

    The reply is a path through a tree of tokens. Wherever it passes, the tokens beside it that
    would have named an option count as well, so that for each option k

    .. math:: m_k = \sum_i p(t_1 .. t_{i-1}) \sum_{c: t_1 .. t_{i-1} c \text{ names } k} p(c | ..)

    up to the place at which the reply has named one; the result is m_0 / (m_0 + m_1). It is exact
    if what comes after an option's name is certain. On the way there a letter counts only with a
    bracket before it, because a bare "A" may well begin a sentence.

    Args:
        reply: With its places.

    Returns:
        None if the reply as a whole names no option, or if one of the options is not among the
        listed tokens and could, as probable as the last listed one, be worth more than
        ``MOST_UNLISTED``.
    """
    if reply.places is None or read_choice(reply.text) is None:
        return None
    before, path, masses, unlisted = "", 0.0, [0.0, 0.0], 0.0
    for taken, candidates in reply.places[:MOST_PLACES]:
        decided = read_choice(before + taken.text) is not None
        for token in candidates:
            chosen = read_choice(before + token.text, bare=decided)
            if chosen is not None:
                masses[chosen] += math.exp(path + token.logprob)
        if decided:
            unlisted = math.exp(path + min(token.logprob for token in candidates))
            break
        before, path = before + taken.text, path + taken.logprob
    total = sum(masses)
    if total == 0 or (0 in masses and unlisted > MOST_UNLISTED * total):
        return None
    return masses[0] / total
