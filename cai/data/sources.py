"""Corpora: every source offers the same sets of records, already split."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from cai.config import ComparisonPrinciple, DataConfig, DataSource, RevisionPrinciple
from cai.config.content import contents, located
from cai.config.nodes import BUILTIN
from cai.data.hh import read_hh_rlhf
from cai.data.records import Comparison, Demonstration, Example, Prompt
from cai.data.rows import read_rows, text_of
from cai.data.splits import Splits, is_judges, split
from cai.dialogue import check_prompt, from_messages
from cai.errors import UserError
from cai.files import digest_of_folder

log = logging.getLogger(__name__)

SETS = (
    "red_team.jsonl",
    "borderline.jsonl",
    "helpful.jsonl",
    "comparisons.jsonl",
    "demonstrations.jsonl",
    "judgements.jsonl",
    "principles.jsonl",
)
"""Files of a data folder."""

Record = TypeVar("Record")


class Principles(NamedTuple):
    """The principles that the data's own demonstrations were written under."""

    revision: list[RevisionPrinciple]
    comparison: list[ComparisonPrinciple]


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
    files = [digest_of_folder(content.path, content.key) for content in contents(config, "data")]
    key = repr((config, files))
    if key not in _kept:
        _kept.clear()
        _kept[key] = _read(config)
    return _kept[key]


def _read(config: DataConfig) -> Corpus:
    if config.source is DataSource.builtin:
        corpus = read_builtin(located(config.folder) if config.folder else BUILTIN)
    else:
        corpus = _with_hh_rlhf(config, read_builtin(BUILTIN))
    for name in ("red_team", "helpful", "helpful_pairs"):
        for side, records in getattr(corpus, name)._asdict().items():
            if not records:
                where = config.folder or f"data={config.source.value}"
                raise UserError(
                    f"{where} has no {name} records in its {side} split: give more data"
                )
    return corpus


def read_builtin(folder: Path) -> Corpus:
    """Read the files that ship with the package, or a folder in the same format.

    A set that the folder does not have is the one that ships with the package, and that is said.

    Raises:
        UserError: If the folder has none of the files, or one is malformed.
    """
    missing = [name for name in SETS if not (folder / name).is_file()]
    if len(missing) == len(SETS):
        raise UserError(f"data.folder={folder} has none of {', '.join(SETS)}: give it one or more")
    if missing:
        log.info("data.folder has no %s: the built-in ones are used", ", ".join(missing))

    def rows(name: str, parse: Callable[[dict[str, Any]], Record]) -> list[Record]:
        return read_rows((BUILTIN if name in missing else folder) / name, parse)

    demonstrations = rows("demonstrations.jsonl", _demonstration)
    shown = [d for d in demonstrations if not is_judges(d.prompt.conversation)]
    harmless = _share_out([_harmless_pair(record) for record in demonstrations])
    judgements = _share_out(rows("judgements.jsonl", _judgement))
    helpful = _share_out(rows("comparisons.jsonl", _comparison))
    return Corpus(
        red_team=_split_prompts(rows("red_team.jsonl", _prompt)),
        borderline=_split_prompts(rows("borderline.jsonl", _prompt)),
        helpful=_split_examples(rows("helpful.jsonl", _example)),
        helpful_pairs=_split_pairs(helpful.others),
        harmless_pairs=_split_pairs(harmless.others),
        demonstrations=_split_demonstrations(shown).train,
        judgements=_split_pairs(judgements.others),
        principles=_principles(rows("principles.jsonl", _principle)),
        judge=JudgeData(
            harmlessness=_split_pairs(harmless.judges + judgements.judges),
            helpfulness=_split_pairs(helpful.judges),
        ),
    )


def _with_hh_rlhf(config: DataConfig, builtin: Corpus) -> Corpus:
    harmless = read_hh_rlhf(config, "harmless-base")
    helpful = read_hh_rlhf(config, "helpful-base")
    prompts = {record.prompt.conversation: record.prompt for record in harmless}
    harmless_shares, helpful_shares = _share_out(harmless), _share_out(helpful)
    return replace(
        builtin,
        red_team=_split_prompts(list(prompts.values())),
        helpful=_split_examples([Example(record.prompt, record.a) for record in helpful]),
        helpful_pairs=_split_pairs(helpful_shares.others),
        harmless_pairs=_split_pairs(harmless_shares.others),
        judge=JudgeData(
            harmlessness=_split_pairs(harmless_shares.judges),
            helpfulness=_split_pairs(helpful_shares.judges),
        ),
    )


class _Shares(NamedTuple):
    """Comparisons divided between the judge and all others."""

    judges: list[Comparison]
    others: list[Comparison]


def _share_out(comparisons: list[Comparison]) -> _Shares:
    shares = _Shares([], [])
    for comparison in comparisons:
        chosen = is_judges(comparison.prompt.conversation)
        (shares.judges if chosen else shares.others).append(comparison)
    return shares


def _principle(row: dict[str, Any]) -> RevisionPrinciple | ComparisonPrinciple:
    if text_of(row, "phase") == "revision":
        texts = {key: text_of(row, key) for key in ("id", "critique", "revision")}
        return RevisionPrinciple(**texts)
    return ComparisonPrinciple(text_of(row, "id"), text_of(row, "text"), row.get("inverse"))


def _principles(rows: list[RevisionPrinciple | ComparisonPrinciple]) -> Principles:
    return Principles(
        [row for row in rows if isinstance(row, RevisionPrinciple)],
        [row for row in rows if isinstance(row, ComparisonPrinciple)],
    )


def _prompt(row: dict[str, Any]) -> Prompt:
    conversation = check_prompt(from_messages(row["messages"]))
    return Prompt(text_of(row, "id"), text_of(row, "kind"), conversation)


def _example(row: dict[str, Any]) -> Example:
    return Example(_prompt(row), text_of(row, "response"))


def _comparison(row: dict[str, Any]) -> Comparison:
    replies = (text_of(row, "chosen"), text_of(row, "rejected"))
    return Comparison(_prompt(row), *replies, probability=1.0, source="helpful")


def _judgement(row: dict[str, Any]) -> Comparison:
    return replace(_comparison(row), source="judgement")


def _demonstration(row: dict[str, Any]) -> Demonstration:
    return Demonstration(
        prompt=_prompt(row),
        response=text_of(row, "response"),
        critique=text_of(row, "critique"),
        revision=text_of(row, "revision"),
        reasoning=text_of(row, "reasoning"),
        worse=text_of(row, "worse") if "worse" in row else None,
        principle=row.get("principle"),
        comparison_principle=row.get("comparison_principle"),
    )


def _harmless_pair(record: Demonstration) -> Comparison:
    better, worse = record.options[record.better], record.options[1 - record.better]
    return Comparison(record.prompt, better, worse, probability=1.0, source="harmless")


def _split_prompts(records: list[Prompt]) -> Splits[Prompt]:
    return split(records, lambda record: record.conversation)


def _split_examples(records: list[Example]) -> Splits[Example]:
    return split(records, lambda record: record.prompt.conversation)


def _split_pairs(records: list[Comparison]) -> Splits[Comparison]:
    return split(records, lambda record: record.prompt.conversation)


def _split_demonstrations(records: list[Demonstration]) -> Splits[Demonstration]:
    return split(records, lambda record: record.prompt.conversation)
