"""Faults of generated texts that small models produce: found, named and counted, never mended."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from cai.config import GuardsConfig
from cai.dialogue import Conversation

_MARKER = re.compile(
    r"(?im)^\s*(?:human|assistant|user|critique|revision|critiquerequest|revisionrequest)\s*:"
    r"|\[\[\[|\]\]\]|<\|?im_(?:start|end)"
)
_ABOUT_THE_REPLY = re.compile(
    r"(?i)^\W*(?:the|this|your) (?:assistant|reply|response|revision|critique)\b"
    r"|^\W*(?:here is|here's) (?:the|a|my) (?:revis|rewrit|improved|new)"
    r"|\bthe assistant(?:'s| should)"
)
_ENDS = re.compile(r"[.!?\u2026\"'\u201d\u2019)\]`]\s*$")
_SENTENCE_END = re.compile(r"[.!?\u2026][\"'\u201d\u2019)]*(?=\s|$)")
_BARE_NUMBER = re.compile(r"(?:^|\n)\s*\d+\.\s*$")
_NGRAM = 8


def faults(
    text: str,
    conversation: Conversation,
    previous: str,
    finished: bool,
    settings: GuardsConfig,
    critique: str | None = None,
) -> list[str]:
    """Name what is wrong with a revision.

    Args:
        text: The revision.
        conversation: What was said before it, few-shots and requests included; the reply that
            was revised, and its critique, left out.
        previous: The reply that was revised.
        finished: Whether sampling ended at a stop token.
        settings: Which faults are looked for.
        critique: What the revision answers to, if there is one.
    """
    said = [turn.text for turn in conversation]
    checks = {
        "role_confusion": bool(_ABOUT_THE_REPLY.search(text)),
        "echo": any(_copies(text, turn) for turn in said),
        "markers": bool(_MARKER.search(text)),
        "truncation": not (finished or ends_a_sentence(text)),
        "no_change": _words(text) == _words(previous),
        "critique_echo": critique is not None and _copies(critique, previous),
        "repetition": runs_in_circles(text),
    }
    found = [name for name, fault in checks.items() if fault and getattr(settings, name)]
    return ["empty", *found] if not text.strip() else found


def ends_a_sentence(text: str) -> bool:
    """Tell whether a text that was cut off happens to end where a sentence does."""
    return bool(_ENDS.search(text)) and not _BARE_NUMBER.search(text)


def whole_sentences(text: str) -> str:
    """Return a text up to the end of its last sentence; empty if it has none."""
    ends = [found.end() for found in _SENTENCE_END.finditer(text)]
    while ends and _BARE_NUMBER.search(text[: ends[-1]]):
        ends.pop()
    return text[: ends[-1]].strip() if ends else ""


def runs_in_circles(text: str, times: int = 3) -> bool:
    """Tell whether some three words come as often as that, as where a small model is stuck."""
    words = _words(text)
    counts = Counter(zip(words, words[1:], words[2:], strict=False))
    return max(counts.values(), default=0) >= times


def near_duplicates(texts: Sequence[str], threshold: float = 0.9) -> list[bool]:
    """Mark texts whose word trigrams nearly equal those of an earlier text (Jaccard index).

    Two sets that overlap enough share one of their first few members in any common order, so
    only texts that do are compared (Chaudhuri et al. 2006).
    """
    kept: list[set[tuple[str, ...]]] = []
    by_gram: dict[tuple[str, ...], list[int]] = defaultdict(list)
    marks = []
    for text in texts:
        words = _words(text)
        grams = {tuple(words[i : i + 3]) for i in range(max(1, len(words) - 2))}
        first = sorted(grams)[: len(grams) - math.ceil(threshold * len(grams)) + 1]
        others = {n for gram in first for n in by_gram[gram]}
        repeated = any(
            len(grams & kept[n]) >= threshold * len(grams | kept[n]) for n in sorted(others)
        )
        marks.append(repeated)
        if not repeated:
            for gram in first:
                by_gram[gram].append(len(kept))
            kept.append(grams)
    return marks


def _copies(text: str, source: str) -> bool:
    """Tell whether most of the text is taken over from a source, or the source stands in it."""
    words, other = _words(text), _words(source)
    if words and words == other:
        return True
    if len(other) >= _NGRAM and " ".join(other) in " ".join(words):
        return True
    grams = [tuple(words[i : i + _NGRAM]) for i in range(len(words) - _NGRAM + 1)]
    known = {tuple(other[i : i + _NGRAM]) for i in range(len(other) - _NGRAM + 1)}
    return bool(grams) and sum(gram in known for gram in grams) > 0.5 * len(grams)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
