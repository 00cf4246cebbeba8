"""The sets of records that every source offers, before they are divided."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from cai.config import ComparisonPrinciple, RevisionPrinciple
from cai.data.records import Comparison, Demonstration, Example, Prompt


class Principles(NamedTuple):
    """The principles that the data's own demonstrations were written under."""

    revision: list[RevisionPrinciple]
    comparison: list[ComparisonPrinciple]


@dataclass(frozen=True)
class Sets:
    """What a source holds.

    Attributes:
        red_team: Prompts that ask for harm.
        borderline: Prompts that sound harmful and are not.
        helpful: Harmless prompts with a good reply.
        helpful_pairs: Human comparisons of helpfulness.
        harmless_pairs: Human comparisons of harmlessness; None: what the demonstrations compare.
        demonstrations: Critiques, revisions and reasoned comparisons.
        judgements: Comparisons that show what is better by any of the principles.
        principles: Of the demonstrations.
        teach: Whether the judge learns from judgements besides comparisons of harmlessness.
    """

    red_team: list[Prompt]
    borderline: list[Prompt]
    helpful: list[Example]
    helpful_pairs: list[Comparison]
    harmless_pairs: list[Comparison] | None
    demonstrations: list[Demonstration]
    judgements: list[Comparison]
    principles: Principles
    teach: bool = True

    def harmless(self) -> list[Comparison]:
        """Return comparisons of harmlessness."""
        if self.harmless_pairs is None:
            return [_compared(record) for record in self.demonstrations]
        return self.harmless_pairs


def without_repeats(prompts: Iterable[Prompt]) -> list[Prompt]:
    """Return prompts with the first of those that say the same."""
    kept: dict[object, Prompt] = {}
    for prompt in prompts:
        kept.setdefault(prompt.conversation, prompt)
    return list(kept.values())


def _compared(record: Demonstration) -> Comparison:
    better, worse = record.options[record.better], record.options[1 - record.better]
    return Comparison(record.prompt, better, worse, probability=1.0, source="harmless")
