"""Pairs of SL-CAI's replies, and which is less harmful according to a model and a principle."""

from __future__ import annotations

import time
from collections.abc import Sequence

from cai.config import Method, Start
from cai.constitution.principles import load_constitution
from cai.constitution.prompts import chain_answer
from cai.contracts.preferences import FeedbackInputs, FeedbackSettings, Labels
from cai.data.records import Comparison, Demonstration, Prompt
from cai.data.sources import Corpus, load_corpus
from cai.errors import UserError
from cai.jsonl import to_json
from cai.labelling.answers import Asked, FeedbackModel, FewShots, Shown, Verdict
from cai.labelling.chains import reasoned_question
from cai.labelling.choice import choice_question
from cai.labelling.judge import Judge
from cai.labelling.methods import make_judge
from cai.labelling.report import label_report
from cai.lm.generate import Sampling
from cai.lm.load import has_adapter, load_chat, load_model
from cai.pipeline.stage import Job
from cai.results.labels import LabelledPair, LabelReport, ReplyPair
from cai.sampling.fitting import ANY_PROMPT, Fitting, Rooms
from cai.sampling.replies import sample_replies
from cai.sampling.shards import make_rows
from cai.sampling.speaker import load_speaker
from cai.seeds import seed_of

SL_CAI = "sft"
JUDGE = "judge"


def notes(settings: FeedbackSettings) -> list[str]:
    """Say which rows do not fit."""
    corpus = load_corpus(settings.data)
    found = [fitting.notes(corpus, rooms) for fitting, rooms in _fittings(settings, corpus)]
    return [note for notes in found for note in notes]


def run(settings: FeedbackSettings, inputs: FeedbackInputs, out: Labels, job: Job) -> None:
    """Sample two replies per prompt, label every pair, and report how far to trust the labels."""
    corpus = fitting_corpus(settings)
    pairs = _sample_pairs(settings, inputs, corpus, out, job)
    judge = make_judge(
        settings.feedback,
        load_constitution(settings.constitution),
        shown(corpus),
        _feedback_model(settings, inputs, job),
        settings.seed,
    )
    known = corpus.harmless_pairs.validation + corpus.harmless_pairs.test
    if settings.feedback.label.calibrate:
        judge.calibrate(corpus.harmless_pairs.validation)
        known = corpus.harmless_pairs.test
    comparisons = [_comparison(pair) for pair in pairs if pair.a and pair.b]
    started = time.monotonic()
    rows = make_rows(
        out.labels,
        len(comparisons),
        settings.feedback.sampling.batch_size,
        lambda part: _label(judge, [comparisons[i] for i in part]),
        "label",
    )
    seconds = time.monotonic() - started
    labelled = [
        Comparison(pair.prompt, pair.a, pair.b, row.label, "harmless")
        for pair, row in zip(comparisons, rows, strict=True)
        if row.label is not None
    ]
    if not labelled:
        raise UserError(
            "no comparison could be labelled: raise feedback.sampling.chain_tokens or "
            "feedback.sampling.chains, or set feedback.cot=false"
        )
    out.comparisons.write(comparison.to_row() for comparison in labelled)
    other = corpus.judgements.validation + corpus.judgements.test
    report = label_report(judge, rows, known, other, empty=len(pairs) - len(comparisons))
    out.report.write(report)
    # Seconds differ from run to run, so they are recorded beside the result and not in it.
    job.tracker.metrics({**_numbers(report), "label_seconds": seconds}, 0)
    job.tracker.table("labels", to_json(rows[:64], list[LabelledPair]))


def fitting_corpus(settings: FeedbackSettings) -> Corpus:
    """Return the data that fit the models."""
    corpus = load_corpus(settings.data)
    for fitting, rooms in _fittings(settings, corpus):
        corpus = fitting.corpus(corpus, rooms)
    return corpus


def shown(corpus: Corpus) -> Shown:
    """Return what a labeller is shown beforehand."""
    return Shown(corpus.demonstrations, corpus.judgements.train + corpus.harmless_pairs.train)


def _fittings(settings: FeedbackSettings, corpus: Corpus) -> list[tuple[Fitting, Rooms]]:
    """Leave room for a reply where pairs are sampled, and for questions where they are asked.

    A question is about two replies; known comparisons bring theirs along.
    """
    said, other = settings.feedback.sampling.reply_tokens, settings.feedback.labeller
    asked = Fitting(load_chat(other or settings.model), settings.data.too_long, "feedback")
    room = _room(asked, settings, corpus.demonstrations)
    rooms = {"red_team": room + 2 * said, "harmless_pairs": room, "judgements": room}
    if other is None:
        return [(asked, rooms)]
    speaker = Fitting(load_chat(settings.model), settings.data.too_long, "feedback")
    return [(speaker, {"red_team": said}), (asked, rooms)]


def _room(
    fitting: Fitting, settings: FeedbackSettings, demonstrations: Sequence[Demonstration]
) -> int:
    """Count the tokens that a question about two replies puts around them and their prompt."""
    feedback = settings.feedback
    if feedback.endpoint.used or feedback.asked_by is not Method.choice:
        return 0
    principles = load_constitution(settings.constitution).comparison
    shots = FewShots(demonstrations[: feedback.few_shots], principles, settings.seed)
    pair = Comparison(Prompt("", "", ANY_PROMPT), "", "", 0.5, "")
    asked = [Asked(pair, principle, swapped=False) for principle in principles]
    if not feedback.cot:
        return fitting.room_of(choice_question(shots, question) for question in asked)
    dialect = fitting.chat.dialect
    rendered = [reasoned_question(shots, question, dialect) for question in asked]
    answers = (chain_answer(question, "", dialect) for question in rendered)
    return feedback.sampling.chain_tokens + fitting.room_of(answers)


def _numbers(report: LabelReport) -> dict[str, float]:
    flat = {**vars(report), **vars(report.cost)}
    return {key: value for key, value in flat.items() if isinstance(value, int | float)}


def _feedback_model(settings: FeedbackSettings, inputs: FeedbackInputs, job: Job) -> FeedbackModel:
    """Load who judges; another model than the policy's takes its place in memory."""
    if settings.feedback.labeller is not None:
        return FeedbackModel(load_model(settings.feedback.labeller, job.hardware), None)
    model = load_speaker(settings.model, job)
    saved = {Start.helpful: inputs.helpful.model, Start.sft: inputs.sft.model}
    folder = saved.get(settings.feedback.model)
    if folder is None or not has_adapter(folder):
        return FeedbackModel(model, None)
    model.add_adapter(JUDGE, 0, folder)
    return FeedbackModel(model, JUDGE)


def _sample_pairs(
    settings: FeedbackSettings, inputs: FeedbackInputs, corpus: Corpus, out: Labels, job: Job
) -> list[ReplyPair]:
    """Sample two replies of SL-CAI per prompt."""
    feedback = settings.feedback
    model = load_speaker(settings.model, job)
    model.add_adapter(SL_CAI, 0, inputs.sft.model)
    prompts = corpus.red_team.train[-feedback.prompts :]
    sampling = Sampling(feedback.sampling.reply_tokens, 1, feedback.sampling.temperature)

    def make(part: range) -> list[ReplyPair]:
        chosen = [prompts[i] for i in part]
        talks = [prompt.conversation for prompt in chosen for _ in "ab"]
        seeds = [
            seed_of(settings.seed, "pair", prompt.id, side) for prompt in chosen for side in "ab"
        ]
        replies = sample_replies(model, SL_CAI, talks, seeds, sampling)
        return [
            ReplyPair(prompt.id, prompt.kind, prompt.conversation, a.text, b.text)
            for prompt, a, b in zip(chosen, replies[::2], replies[1::2], strict=True)
        ]

    return make_rows(out.pairs, len(prompts), feedback.sampling.batch_size, make, "pairs")


def _comparison(pair: ReplyPair) -> Comparison:
    prompt = Prompt(pair.prompt_id, pair.kind, pair.messages)
    return Comparison(prompt, pair.a, pair.b, 0.5, "harmless")


def _label(judge: Judge, comparisons: Sequence[Comparison]) -> list[LabelledPair]:
    verdicts: Sequence[Verdict] = judge.judge(comparisons)
    return [
        LabelledPair(
            prompt_id=comparison.prompt.id,
            messages=comparison.prompt.conversation,
            a=comparison.a,
            b=comparison.b,
            **vars(verdict),
        )
        for comparison, verdict in zip(comparisons, verdicts, strict=True)
    ]
