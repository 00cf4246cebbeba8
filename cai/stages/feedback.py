"""Pairs of SL-CAI's replies, and which is less harmful according to a model and a principle."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from cai.artifacts import Artifact, write_json, write_jsonl
from cai.config import Config, FeedbackConfig, Method, Start
from cai.constitution.principles import load_constitution
from cai.constitution.prompts import chain_answer
from cai.data.records import Comparison, Demonstration, Prompt
from cai.data.sources import load_corpus
from cai.dialogue import from_messages, to_messages
from cai.errors import UserError
from cai.labelling.chains import reasoned_question
from cai.labelling.choice import choice_question
from cai.labelling.judge import Asked, Judge, Shown, Verdict, make_judge
from cai.labelling.report import label_report
from cai.lm.generate import Sampling
from cai.lm.load import LanguageModel, has_adapter, load_model
from cai.sampling.fitting import ANY_PROMPT, Fitting
from cai.sampling.replies import sample_replies
from cai.sampling.shards import Row, make_rows
from cai.seeds import seed_of
from cai.tracking import Tracker

SL_CAI = "sft"
HELPFUL = "helpful"


def run(config: Config, inputs: dict[str, Artifact], out: Path, tracker: Tracker) -> None:
    """Sample two replies per prompt, label every pair, and report how far to trust the labels.

    ``comparisons.jsonl`` can be handed to any preference trainer: ``prompt``, ``chosen`` and
    ``rejected`` are lists of messages, and ``probability`` is the label, of ``chosen``.
    """
    settings = config.feedback
    assert settings is not None
    model = load_model(config.model, config.hardware)
    fitting = Fitting(model.chat, config.data.too_long, "feedback")
    corpus = load_corpus(config.data)
    corpus = fitting.corpus(corpus, _room(fitting, settings, config, corpus.demonstrations))
    adapters = _load_adapters(model, inputs)
    prompts = corpus.red_team.train[-settings.prompts :]
    pairs = _sample_pairs(config, settings, model, prompts, out)
    judge = make_judge(
        settings,
        load_constitution(config.constitution),
        Shown(corpus.demonstrations, corpus.judgements.train + corpus.harmless_pairs.train),
        (model, adapters[settings.model]),
        config.seed,
    )
    known = corpus.harmless_pairs.validation + corpus.harmless_pairs.test
    if settings.calibrate:
        judge.calibrate(corpus.harmless_pairs.validation)
        known = corpus.harmless_pairs.test
    comparisons = [_comparison(row) for row in pairs if row["a"] and row["b"]]
    started = time.monotonic()
    rows = make_rows(
        out / "labels.jsonl",
        len(comparisons),
        settings.batch_size,
        lambda part: _label(judge, [comparisons[i] for i in part]),
        "label",
    )
    seconds = time.monotonic() - started
    labelled = [
        Comparison(pair.prompt, pair.a, pair.b, row["label"], "harmless")
        for pair, row in zip(comparisons, rows, strict=True)
        if row["label"] is not None
    ]
    if not labelled:
        raise UserError(
            "no comparison could be labelled: raise feedback.chain_tokens or feedback.chains, or "
            "set feedback.cot=false"
        )
    write_jsonl(out / "comparisons.jsonl", [comparison.to_row() for comparison in labelled])
    other = corpus.judgements.validation + corpus.judgements.test
    report = {"empty": len(pairs) - len(comparisons), **label_report(judge, rows, known, other)}
    write_json(out / "report.json", report)
    # Seconds differ from run to run, so they are recorded beside the result and not in it.
    numbers = {key: value for key, value in report.items() if isinstance(value, int | float)}
    tracker.metrics({**numbers, **report["cost"], "label_seconds": seconds}, 0)
    tracker.table("labels", rows[:64])


def _room(
    fitting: Fitting,
    settings: FeedbackConfig,
    config: Config,
    demonstrations: Sequence[Demonstration],
) -> int:
    """Count the tokens that a question about two replies puts around its prompt."""
    said = 2 * settings.reply_tokens
    if settings.endpoint.used or settings.method is not Method.choice:
        return said
    principles = load_constitution(config.constitution).comparison
    shots = (list(demonstrations[: settings.few_shots]), principles, config.seed)
    pair = Comparison(Prompt("", "", ANY_PROMPT), "", "", 0.5, "")
    asked = [Asked(pair, principle, swapped=False) for principle in principles]
    if not settings.cot:
        return said + fitting.room_of(choice_question(shots, question) for question in asked)
    dialect = fitting.chat.dialect
    rendered = [reasoned_question(shots, question, dialect) for question in asked]
    answers = (chain_answer(question, "", dialect) for question in rendered)
    return said + settings.chain_tokens + fitting.room_of(answers)


def _load_adapters(model: LanguageModel, inputs: dict[str, Artifact]) -> dict[Start, str | None]:
    adapters: dict[Start, str | None] = {Start.base: None, Start.helpful: None, Start.sft: SL_CAI}
    if has_adapter(inputs["helpful"].path / "model"):
        model.add_adapter(HELPFUL, 0, inputs["helpful"].path / "model")
        adapters[Start.helpful] = HELPFUL
    model.add_adapter(SL_CAI, 0, inputs["sft"].path / "model")
    return adapters


def _sample_pairs(
    config: Config,
    settings: FeedbackConfig,
    model: LanguageModel,
    prompts: Sequence[Prompt],
    out: Path,
) -> list[Row]:
    """Sample two replies of SL-CAI per prompt."""
    sampling = Sampling(settings.reply_tokens, 1, settings.temperature)

    def make(part: range) -> list[Row]:
        chosen = [prompts[i] for i in part]
        talks = [prompt.conversation for prompt in chosen for _ in "ab"]
        seeds = [
            seed_of(config.seed, "pair", prompt.id, side) for prompt in chosen for side in "ab"
        ]
        replies = sample_replies(model, SL_CAI, talks, seeds, sampling)
        return [
            {
                "prompt_id": prompt.id,
                "kind": prompt.kind,
                "messages": to_messages(prompt.conversation),
                "a": a.text,
                "b": b.text,
            }
            for prompt, a, b in zip(chosen, replies[::2], replies[1::2], strict=True)
        ]

    return make_rows(out / "pairs.jsonl", len(prompts), settings.batch_size, make, "pairs")


def _comparison(row: Row) -> Comparison:
    prompt = Prompt(row["prompt_id"], row["kind"], from_messages(row["messages"]))
    return Comparison(prompt, row["a"], row["b"], 0.5, "harmless")


def _label(judge: Judge, comparisons: Sequence[Comparison]) -> list[Row]:
    verdicts: Sequence[Verdict] = judge.judge(comparisons)
    return [
        {
            "prompt_id": comparison.prompt.id,
            "messages": to_messages(comparison.prompt.conversation),
            "a": comparison.a,
            "b": comparison.b,
            **verdict.to_row(),
        }
        for comparison, verdict in zip(comparisons, verdicts, strict=True)
    ]
