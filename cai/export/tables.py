"""The rows of each stage in the columns that TRL and other trainers read, our own beside them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cai.config import ConstitutionConfig, DataConfig
from cai.constitution.principles import load_constitution
from cai.contracts.assistants import SLCAI, HelpfulAssistant, Revisions
from cai.contracts.policies import Evaluation, PolicyResult
from cai.contracts.preferences import Labels, PreferenceModels
from cai.contracts.recorded import recorded_node
from cai.data.sources import load_corpus
from cai.dialogue import Conversation, assistant, to_messages
from cai.errors import UserError
from cai.export.lineage import Lineage
from cai.jsonl import Rows, T, to_json
from cai.pipeline.stage import Result
from cai.results.labels import LabelledPair, PreferenceRow
from cai.results.revisions import HelpfulAnswer

log = logging.getLogger(__name__)

Row = dict[str, Any]
SFT, PREFERENCE, OTHER = "messages", "prompt, chosen, rejected", "-"
"""Columns that a trainer asks for."""


@dataclass(frozen=True)
class Table:
    """Rows of one kind.

    Attributes:
        name: Of the set.
        artifact: The result that they are from.
        form: Columns that TRL reads.
        about: What they are.
        rows: As JSON types.
    """

    name: str
    artifact: str
    form: str
    about: str
    rows: list[Row]


def tables_of(lineage: Lineage) -> list[Table]:
    """List the sets that a run has rows for."""
    read = {
        "helpful": _of_helpful,
        "revise": _of_revise,
        "sft": _of_sft,
        "feedback": _of_feedback,
        "pm": _of_pm,
        "rl": _of_rl,
        "evaluate": _of_evaluate,
    }
    return [
        table
        for stage, result in lineage.results.items()
        if stage in read
        for table in read[stage](result)
        if table.rows
    ]


def _of_helpful(result: Result) -> Iterable[Table]:
    made = HelpfulAssistant(result.stage, result.fingerprint, result.path)
    about = "Answers of the bare model that the helpful assistant learnt from."
    answers = _answered(made, made.answers)
    yield Table("base_answers", result.name, SFT, about, answers)
    rows = [
        {
            "id": row.prompt_id,
            "messages": _talk(row.messages, row.response),
            "style": row.style,
        }
        for row in _read(made.gate_replies)
    ]
    about = (
        "Replies of the helpful assistant to held-out red-team prompts: it does what it is asked."
    )
    yield Table("gate", result.name, SFT, about, rows)


def _of_revise(result: Result) -> Iterable[Table]:
    made = Revisions(result.stage, result.fingerprint, result.path)
    texts = _principles(result, "revision")
    rows = [
        {
            "id": row.prompt_id,
            "kind": row.kind,
            "messages": _talk(row.messages, step.revision),
            "round": step.round,
            "principle": step.principle,
            "principle_text": texts.get(step.principle),
            "critique": step.critique,
            "before": row.after(step.round - 1),
        }
        for row in _read(made.rows)
        for step in row.rounds
        if not step.faults
    ]
    about = (
        "Revised replies to red-team prompts, one row for each round without a fault; `before` is "
        "the reply that was criticised."
    )
    yield Table("revisions", result.name, SFT, about, rows)


def _of_sft(result: Result) -> Iterable[Table]:
    made = SLCAI(result.stage, result.fingerprint, result.path)
    about = "The helpful assistant's answers to helpful prompts, which SL-CAI learnt, too."
    answers = _answered(made, made.helpful_answers)
    yield Table("helpful_answers", result.name, SFT, about, answers)


def _of_feedback(result: Result) -> Iterable[Table]:
    made = Labels(result.stage, result.fingerprint, result.path)
    texts = _principles(result, "comparison")
    asked = {_key(row.prompt_id, row.a, row.b): row for row in _read(made.labels)}
    rows = [
        {**_pair(row), **_asked(asked.get(_key_of(row)), texts)} for row in _read(made.comparisons)
    ]
    about = (
        "AI labels of harmlessness: `probability` is the soft label, of `chosen`; `principles` are "
        "those that were asked."
    )
    yield Table("labels", result.name, PREFERENCE, about, rows)


def _of_pm(result: Result) -> Iterable[Table]:
    made = PreferenceModels(result.stage, result.fingerprint, result.path)
    rows = [
        {**_pair(row), "model": name}
        for folder, name in (("model", "pm"), ("twin", "twin"))
        for row in _read(made.named(folder).comparisons)
    ]
    about = (
        "All comparisons that the preference models learnt from; `model` says which of the two, "
        "`source` whether of harmlessness or of helpfulness."
    )
    yield Table("preferences", result.name, PREFERENCE, about, rows)


def _of_rl(result: Result) -> Iterable[Table]:
    made = PolicyResult(result.stage, result.fingerprint, result.path)
    rows = [
        {
            "id": row.prompt_id,
            "messages": _talk(row.messages, row.response),
            "iteration": row.iteration,
            "score": row.score,
            "twin_score": row.twin_score,
        }
        for row in _read(made.transcripts)
    ]
    about = "What the policy said on its way, with the scores of both preference models."
    yield Table("transcripts", result.name, SFT, about, rows)


def _of_evaluate(result: Result) -> Iterable[Table]:
    made = Evaluation(result.stage, result.fingerprint, result.path)
    rows = []
    for reply in _read(made.replies):
        plain = to_json(reply)
        plain["messages"] = _talk(reply.messages, plain.pop("response"))
        rows.append({"id": plain.pop("prompt_id"), **plain})
    about = "Every system's replies to held-out prompts, with their styles and scores."
    yield Table("replies", result.name, SFT, about, rows)
    matches = [to_json(match) for match in _read(made.matches)]
    about = "Who won, by judge, axis and prompt: `outcome` is the share of `first`."
    yield Table("matches", result.name, OTHER, about, matches)


def _read(rows: Rows[T]) -> list[T]:
    """Read rows; none where a stage has none of these."""
    if not rows.exists():
        return []
    try:
        return rows.read()
    except ValueError as error:
        raise UserError(
            f"{rows.path} was not written by this version: make the result again"
        ) from error


def _talk(prompt: Conversation, reply: str) -> list[Row]:
    return to_messages((*prompt, assistant(reply)))


def _answered(result: Result, answers: Rows[HelpfulAnswer]) -> list[Row]:
    """Put answers behind their prompts, which are in the data; none where these can't be had."""
    found = _read(answers)
    if not found:
        return []
    try:
        corpus = load_corpus(recorded_node(result, "data", DataConfig))
    except UserError as error:
        log.warning("%s left out: %s", answers.path.name, error)
        return []
    prompts = {e.prompt.id: e.prompt for part in corpus.helpful for e in part}
    return [
        {
            "id": row.prompt_id,
            "kind": prompts[row.prompt_id].kind,
            "messages": _talk(prompts[row.prompt_id].conversation, row.response),
            "finished": row.finished,
        }
        for row in found
        if row.prompt_id in prompts
    ]


def _principles(result: Result, phase: str) -> dict[str, str]:
    """Return the words of the principles by id; none where they can't be had any more."""
    try:
        sets = load_constitution(recorded_node(result, "constitution", ConstitutionConfig))
    except UserError as error:
        log.warning("the words of the principles are left out: %s", error)
        return {}
    if phase == "comparison":
        return {principle.id: principle.text for principle in sets.comparison}
    return {p.id: f"{p.critique} {p.revision}" for p in sets.revision}


def _pair(row: PreferenceRow) -> Row:
    return {
        "id": row.id,
        "kind": row.kind,
        "source": row.source,
        "prompt": to_messages(row.prompt),
        "chosen": row.chosen,
        "rejected": row.rejected,
        "probability": row.probability,
    }


def _asked(label: LabelledPair | None, texts: Mapping[str, str]) -> Row:
    """Say which principles a label rests on."""
    ids = [opinion.principle for opinion in label.opinions] if label else []
    return {"principles": ids, "principle_texts": [texts.get(key, "") for key in ids]}


def _key(prompt_id: str, a: str, b: str) -> tuple[str, frozenset[str]]:
    return prompt_id, frozenset((a, b))


def _key_of(row: PreferenceRow) -> tuple[str, frozenset[str]]:
    return _key(row.id, row.chosen[0]["content"], row.rejected[0]["content"])
