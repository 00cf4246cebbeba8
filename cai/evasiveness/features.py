"""What can be seen in a reply without a model: named, hand-made features.

Each feature is a property a reader would name when asked why a reply declines, moralises, gives a
reason or changes the subject. There are two groups: *shape* (length, lists, questions, what the
reply shares with the request) and *acts* (see `acts`), which combine families of wording (see
`wording`) into what the reply does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import islice

from cai.evasiveness.acts import Features, acts
from cai.evasiveness.text import (
    STOCK_WORDS,
    TASK_WORDS,
    clean_reply,
    last_request,
    plain,
    sentences,
    stems,
    words,
)
from cai.evasiveness.wording import BARE_APOLOGY, BARE_NO, BLAME, FAMILIES

_LIST_ITEM = re.compile(r"^\s*(?:[-*\u2022]|\d{1,2}[.)]|step \d)\s", re.MULTILINE)
_QUOTED = re.compile(r'"[^"\n]{1,300}"')
_BARE_NO = re.compile(BARE_NO)
_BARE_APOLOGY = re.compile(BARE_APOLOGY)
_BLAME = re.compile(BLAME)
_ASKS_HOWTO = re.compile(
    r"\bhow (?:do|can|could|should|would|to|might) ?(?:i|we|you|one|someone)?\b|\bways? (?:to|of)\b"
    r"|\bhelp me\b|\b(?:where|what|who) (?:can|should|do) (?:i|we)\b"
    r"|\b(?:instructions|steps|guide|tutorial|method|strategy)\b"
)
_ASKS_FACT = re.compile(
    r"\bwhat (?:is|are|was|were|did|does|do|happened|constitutes|kind|killed|causes?)\b|\bwho\b"
    r"|\bwhen\b|\bhow (?:did|was|were|does|many|much|long|old|come)\b|\bwhere (?:is|are|was|did)"
    r"|\b(?:define|definition|explain|describe|meaning)\b"
)
_ASKS_WHY = re.compile(r"\bwhy\b|\breasons?\b")
_ASKS_VIEW = re.compile(
    r"^\W*(?:[a-z, ]+, )?(?:should|would|do|did|are|have|will|can|could|were) (?:you|we|i|people"
    r"|they|he|she|the)\b|\b(?:do|would|are|have) you\b|^\W*should\b|[.?!] should\b"
    r"|\byour (?:own |personal )?(?:opinion|view|thought|favou?rite|stance|experience|feeling)"
    r"|\bis it (?:ok|right|wrong|fair|good|bad|ethical|moral)|^\W*(?:is|are|was|were)\b"
)
_YES_NO = re.compile(
    r"^\W*(?:is|are|was|were|does|did|has|had|am|should|do|have"
    r"|(?:can|could|will|would) (?!you\b))\b"
)
_LEAD_SENTENCES = 2
_LEAD_CHARACTERS = 500
_MAX_CHARACTERS = 2400  # wording further down says how long a reply is, not what it does
_MAX_SENTENCES = 12
_COUNT_CAP = 3


_FAMILIES = tuple((name, re.compile(each.pattern), each) for name, each in FAMILIES.items())
_DECLINES = re.compile(FAMILIES["declines"].pattern)


def _share(asked: set[str], said: set[str]) -> float:
    return len(asked & said) / len(asked) if asked else 0.0


def _lead(parts: Sequence[str]) -> str:
    """Join the first two sentences, where "I'm sorry." and "No." do not count as sentences."""
    taken: list[str] = []
    counted = 0
    for part in parts:
        taken.append(part)
        counted += len(part.split()) > 3
        if counted == _LEAD_SENTENCES:
            break
    return " ".join(taken)[:_LEAD_CHARACTERS]


def _wording(lead: str, text: str) -> Features:
    """Presence of each family in the opening, and its count in the whole reply, capped."""
    found: Features = {}
    for name, pattern, where in _FAMILIES:
        if where.lead:
            found[f"{name}.lead"] = float(pattern.search(lead) is not None)
        if where.all:
            count = sum(1 for _ in islice(pattern.finditer(text), _COUNT_CAP))
            found[f"{name}.all"] = count / _COUNT_CAP
    return found


def _request_kind(request: str) -> Features:
    return {
        "asks_howto": float(_ASKS_HOWTO.search(request) is not None),
        "asks_fact": float(_ASKS_FACT.search(request) is not None),
        "asks_why": float(_ASKS_WHY.search(request) is not None),
        "asks_view": float(_ASKS_VIEW.search(request) is not None),
        "asks_yes_no": float(_YES_NO.search(request) is not None),
        "asks_about_bad": float(_BLAME.search(request) is not None),
    }


def _form(text: str, parts: Sequence[str]) -> Features:
    n_words = len(text.split())
    lines = [line for line in text.split("\n") if line.strip()]
    short_lines = sum(len(line.split()) <= 12 for line in lines)
    questions = sum(part.endswith("?") for part in parts)
    items = len(_LIST_ITEM.findall(text))
    verse = len(lines) >= 6 and short_lines / len(lines) > 0.8 and items < 3
    return {
        "length": math.log1p(n_words) / 6,
        "short": float(n_words <= 45),
        "brief": float(n_words <= 25),
        "very_brief": float(n_words <= 8),
        "list": min(items, 5) / 5,
        "verse": float(verse),
        "code": float("```" in text),
        "asks": questions / max(1, len(parts)),
        "ends_asking": float(bool(parts) and parts[-1].endswith("?")),
        "only_asks": float(bool(parts) and questions == len(parts)),
    }


def _content(dialogue: str, request: str, text: str, parts: Sequence[str]) -> Features:
    content = words(text)
    asked, said = stems(request), stems(text)
    own = stems(" ".join(word for word in content if word not in STOCK_WORDS)) - asked
    about = stems(" ".join(word for word in words(dialogue) if word not in TASK_WORDS))
    besides = " ".join(part for part in parts[:_MAX_SENTENCES] if not _DECLINES.search(part))
    strays = bool(about) and not about & said
    return {
        "own_words": math.log1p(len(own)) / 5,
        "few_own_words": float(len(own) <= 3),
        "specific": min(1.0, max(0, len(own) - 2) / 6),
        "stock_share": sum(word in STOCK_WORDS for word in content) / max(1, len(content)),
        "shared": _share(asked, said),
        "tied": _share(asked, stems(besides)),
        "unrelated": float(strays and len(text.split()) > 40),
    }


_SHAPE = (
    *("length", "brief", "very_brief", "list", "verse", "asks", "ends_asking", "only_asks"),
    *("own_words", "few_own_words", "stock_share", "shared", "tied", "unrelated"),
    *("asks_howto", "asks_fact", "asks_why", "asks_view"),
)


def extract(prompt: str, response: str) -> Features:
    r"""Measure a reply.

    Args:
        prompt: The request, or a transcript ``\n\nHuman: ...\n\nAssistant:`` whose last human turn
            is the request.
        response: The reply; what follows a stray ``\n\nHuman:`` is cut.

    Returns:
        Value by feature name, each between 0 and about 1, always the same names in the same order.
        Names of shape are bare words that start with ``shape.``; the others are acts.
    """
    text = plain(clean_reply(response)[:_MAX_CHARACTERS])
    said = _QUOTED.sub('""', text)  # what a reply quotes, it does not say
    parts = sentences(said)
    dialogue, request = plain(prompt), plain(last_request(prompt))
    found = {
        **_wording(_lead(parts), said),
        **_request_kind(request),
        **_form(text, parts),
        **_content(dialogue, request, text, parts),
    }
    found["bare_no"] = float(_BARE_NO.search(text) is not None) * (1 - found["asks_yes_no"])
    found["bare_apology"] = float(_BARE_APOLOGY.search(text) is not None)
    return {**{f"shape.{name}": found[name] for name in _SHAPE}, **acts(found)}
