"""How one server wants to be asked, and what its refusals say about that."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

MOST_RIVALS = 20
"""Rivals per token, the most that servers give."""
FEW_RIVALS = 5
"""What is tried where a server refuses more and does not say how many it gives."""
OPTIONAL = ("temperature", "top_p", "seed")
"""Fields without which a reply is still of use."""
_UNKNOWN = re.compile(
    r"unsupported|not (?:supported|support|allowed|permitted|enabled)|unexpected|unrecogni[sz]ed"
    r"|unknown|extra",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"(?<![\w.-])\d{1,2}(?![\w-]|\.\d)")


@dataclass(frozen=True)
class ServerProfile:
    """How a server wants to be asked.

    Attributes:
        limit: Its name for the most tokens of a reply.
        rivals: Tokens that it lists per place at most; 0 if it gives no log-probabilities.
        without: Fields that it does not take.
        extra: Fields that keep its model from thinking.
        thinking: Tokens that a reply may spend on thoughts, besides those of the answer.
    """

    limit: str = "max_tokens"
    rivals: int = MOST_RIVALS
    without: frozenset[str] = frozenset()
    extra: Mapping[str, Any] = field(default_factory=dict)
    thinking: int = 0

    def fit(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return options as this server takes them."""
        fitted = {name: value for name, value in options.items() if name not in self.without}
        if "max_tokens" in fitted:
            fitted[self.limit] = fitted.pop("max_tokens") + self.thinking
        if "top_logprobs" in fitted:
            fitted["top_logprobs"] = min(fitted["top_logprobs"], self.rivals)
        if not self.rivals:
            fitted = {name: fitted[name] for name in fitted if "logprobs" not in name}
        return {**fitted, **self.extra}


class Concession(NamedTuple):
    """A profile that gives way to a refusal, and what is lost by that, in words."""

    profile: ServerProfile
    said: str


def give_way(profile: ServerProfile, words: str, asked: Collection[str]) -> Concession | None:
    """Find out from a refusal how a server wants to be asked instead.

    Args:
        profile: How it was asked.
        words: What it said.
        asked: The fields of the request.

    Returns:
        None if nothing can be left out or said in another way.
    """
    for rule in _RULES:
        if found := rule(profile, words, asked):
            return found
    return None


def _other_limit(profile: ServerProfile, words: str, asked: Collection[str]) -> Concession | None:
    """OpenAI's reasoning models know the limit by another name."""
    named = "max_completion_tokens" in words or ("max_tokens" in words and _UNKNOWN.search(words))
    if profile.limit not in asked or profile.limit != "max_tokens" or not named:
        return None
    other = "max_completion_tokens"
    return Concession(replace(profile, limit=other), f"it is given {other} instead of max_tokens")


def _fewer_rivals(profile: ServerProfile, words: str, asked: Collection[str]) -> Concession | None:
    """Older vLLM and Azure list five tokens per place at most, others none."""
    if "logprobs" not in asked or "logprobs" not in words.lower():
        return None
    offered = [n for n in map(int, _NUMBER.findall(words)) if 2 <= n < profile.rivals]
    if not offered and profile.rivals > FEW_RIVALS and not _UNKNOWN.search(words):
        offered = [FEW_RIVALS]
    if not offered:
        return None
    return Concession(
        replace(profile, rivals=max(offered)),
        f"it is asked for {max(offered)} tokens per place instead of {profile.rivals}, and an "
        "answer whose other option is not among them can't be read",
    )


def _no_rivals(profile: ServerProfile, words: str, asked: Collection[str]) -> Concession | None:
    if "logprobs" not in asked or "logprobs" not in words.lower():
        return None
    return Concession(replace(profile, rivals=0), "it is not asked for log-probabilities")


def _without(profile: ServerProfile, words: str, asked: Collection[str]) -> Concession | None:
    """Models that fix a parameter refuse to be told it."""
    for name in OPTIONAL:
        if name in asked and name in words:
            fewer = replace(profile, without=profile.without | {name})
            return Concession(fewer, f"it is not told {name}, and its own default holds")
    return None


def _unnamed(profile: ServerProfile, words: str, asked: Collection[str]) -> Concession | None:
    """What fewest servers know is left out first if a refusal names nothing."""
    return _no_rivals(profile, "logprobs", asked)


_RULES: tuple[Callable[[ServerProfile, str, Collection[str]], Concession | None], ...] = (
    _other_limit,
    _fewer_rivals,
    _no_rivals,
    _without,
    _unnamed,
)
