"""Corpora: every source offers the same sets of records, already split."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from cai.config import DataConfig, DataSource
from cai.config.content import Kind, contents, located
from cai.config.nodes import BUILTIN
from cai.data.files import read_files
from cai.data.folder import read_folder
from cai.data.hh import read_hh_rlhf
from cai.data.records import Comparison, Demonstration, Example, Prompt
from cai.data.sets import Principles, Sets, without_repeats
from cai.data.splits import Splits, is_judges, split
from cai.errors import UserError
from cai.files import digest_of_file, digest_of_folder

COMPARED = ("helpful_pairs", "harmless_pairs", "judgements")
"""Sets of comparisons with a known answer."""
NEEDED = ("red_team", "helpful", "helpful_pairs")
"""Sets that are to have records on every side."""
DIGEST = {Kind.file: digest_of_file, Kind.folder: digest_of_folder}


class JudgeData(NamedTuple):
    """Comparisons with a known answer that the judge learns from and is tested on, and no other."""

    harmlessness: Splits[Comparison]
    helpfulness: Splits[Comparison]


@dataclass(frozen=True)
class Corpus:
    """Everything the stages read; of comparisons, what is left when the judge has had its share.

    Attributes:
        red_team: Prompts that ask for harm.
        borderline: Prompts that sound harmful and are not.
        helpful: Harmless prompts with a good reply.
        helpful_pairs: Human comparisons of helpfulness.
        harmless_pairs: Human comparisons of harmlessness.
        demonstrations: Critiques, revisions and reasoned comparisons.
        judgements: Comparisons that show what is better by any of the principles: declining harm,
            engaging with a hard subject, honesty about oneself and the world, help, respect.
        principles: Of the demonstrations.
        judge: The judge's share.
    """

    red_team: Splits[Prompt]
    borderline: Splits[Prompt]
    helpful: Splits[Example]
    helpful_pairs: Splits[Comparison]
    harmless_pairs: Splits[Comparison]
    demonstrations: list[Demonstration]
    judgements: Splits[Comparison]
    principles: Principles
    judge: JudgeData


_kept: dict[str, Corpus] = {}
"""At most the corpus that was read last."""


def load_corpus(config: DataConfig) -> Corpus:
    """Read the corpus that ``data`` names; the last one is not read again while it is the same.

    Raises:
        UserError: If a file is missing or malformed, or a set that stages need is empty.
    """
    found = contents(config, "data")
    files = [DIGEST[content.kind](content.path, content.key) for content in found]
    key = repr((config, files))
    if key not in _kept:
        _kept.clear()
        _kept[key] = _read(config)
    return _kept[key]


def _read(config: DataConfig) -> Corpus:
    if config.source is DataSource.builtin:
        sets = read_folder(located(config.folder) if config.folder else BUILTIN, config.bad_rows)
    elif config.source is DataSource.files:
        sets = read_files(config)
    else:
        sets = _hh_rlhf(config)
    corpus = divide(sets)
    for name in NEEDED:
        for side, records in getattr(corpus, name)._asdict().items():
            if not records:
                where = config.folder or f"data={config.source.value}"
                raise UserError(
                    f"{where} has no {name} records in its {side} split: give more data"
                )
    return corpus if config.exam is None else _measured_on(corpus, config.exam)


def _measured_on(corpus: Corpus, n: int) -> Corpus:
    """Leave as many comparisons on each held-out side, drawn at random."""

    def shortened(splits: Splits[Comparison]) -> Splits[Comparison]:
        sides = (_drawn(splits.validation, n), _drawn(splits.test, n))
        return Splits(splits.train, *sides)

    judges = JudgeData(*map(shortened, corpus.judge))
    kinds: dict[str, Any] = {name: shortened(getattr(corpus, name)) for name in COMPARED}
    return replace(corpus, judge=judges, **kinds)


def _drawn(records: list[Comparison], n: int) -> list[Comparison]:
    chosen = random.Random(0).sample(range(len(records)), min(n, len(records)))
    return [records[i] for i in sorted(chosen)]


def divide(sets: Sets) -> Corpus:
    """Divide every set by the words that its conversations begin with."""
    shown = [d for d in sets.demonstrations if not is_judges(d.prompt.conversation)]
    harmless, helpful = _share_out(sets.harmless()), _share_out(sets.helpful_pairs)
    judgements = _share_out(sets.judgements)
    taught = judgements.judges if sets.teach else []
    return Corpus(
        red_team=split(sets.red_team, lambda record: record.conversation),
        borderline=split(sets.borderline, lambda record: record.conversation),
        helpful=split(sets.helpful, lambda record: record.prompt.conversation),
        helpful_pairs=_split_pairs(helpful.others),
        harmless_pairs=_split_pairs(harmless.others),
        demonstrations=split(shown, lambda record: record.prompt.conversation).train,
        judgements=_split_pairs(judgements.others),
        principles=sets.principles,
        judge=JudgeData(
            harmlessness=_split_pairs(harmless.judges + taught),
            helpfulness=_split_pairs(helpful.judges),
        ),
    )


def _hh_rlhf(config: DataConfig) -> Sets:
    harmless = read_hh_rlhf(config, "harmless-base")
    helpful = read_hh_rlhf(config, "helpful-base")
    return replace(
        read_folder(),
        red_team=without_repeats(record.prompt for record in harmless),
        helpful=[Example(record.prompt, record.a) for record in helpful],
        helpful_pairs=helpful,
        harmless_pairs=harmless,
        teach=False,
    )


class _Shares(NamedTuple):
    """Comparisons divided between the judge and all others."""

    judges: list[Comparison]
    others: list[Comparison]


def _share_out(comparisons: Sequence[Comparison]) -> _Shares:
    shares = _Shares([], [])
    for comparison in comparisons:
        chosen = is_judges(comparison.prompt.conversation)
        (shares.judges if chosen else shares.others).append(comparison)
    return shares


def _split_pairs(records: list[Comparison]) -> Splits[Comparison]:
    return split(records, lambda record: record.prompt.conversation)
