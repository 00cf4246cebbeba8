"""SL-CAI: fine-tuning on the revisions and on helpful answers."""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Sequence

from cai.config import HelpfulSource, Revisions, SFTConfig, Start
from cai.constitution.guards import ends_a_sentence
from cai.contracts.assistants import SLCAI, HelpfulAssistant, SFTInputs, SFTSettings
from cai.data.records import Example
from cai.data.sources import load_corpus
from cai.dialogue import Conversation
from cai.errors import UserError
from cai.lm.generate import Sampling
from cai.lm.heads import save_model
from cai.lm.load import LanguageModel, has_adapter, load_chat
from cai.lm.packing import Tree
from cai.pipeline.stage import Job
from cai.results.revisions import HelpfulAnswer, Revision, SFTMetrics
from cai.sampling.fitting import Fitting, Rooms
from cai.sampling.replies import sample_replies
from cai.sampling.shards import make_rows
from cai.sampling.speaker import load_speaker
from cai.seeds import seed_of
from cai.training.data import Order
from cai.training.sft import SFTModule, mean_loss
from cai.training.trainer import Fit, fit, seed_everything

log = logging.getLogger(__name__)

ADAPTER = "sft"
HELPFUL = "helpful"
SAMPLES = 2
"""Replies of the helpful model per helpful prompt, as in the paper."""
ANSWER_TOKENS = 128
"""Longest of them."""

Pairs = list[tuple[Conversation, str]]
"""Prompts, each with a reply to learn."""


def notes(settings: SFTSettings) -> list[str]:
    """Say which rows do not fit."""
    fitting = Fitting(load_chat(settings.model), settings.data.too_long, "sft")
    return fitting.notes(load_corpus(settings.data), _rooms(settings.sft))


def _rooms(settings: SFTConfig) -> Rooms:
    sampled = settings.helpful_source is HelpfulSource.model
    return {"helpful": ANSWER_TOKENS if sampled else 0}


def run(settings: SFTSettings, inputs: SFTInputs, out: SLCAI, job: Job) -> None:
    """Train one epoch on the mixture and measure the loss on held-out helpful answers."""
    seed_everything(settings.seed)
    model = load_speaker(settings.model, job)
    fitting = Fitting(model.chat, settings.data.too_long, "sft")
    corpus = fitting.corpus(load_corpus(settings.data), _rooms(settings.sft))
    revisions = _revisions(settings.sft, inputs.revise.rows.read())
    n_helpful = round(len(revisions) * settings.sft.helpful_per_revision)
    shuffle = random.Random(seed_of(settings.seed, "sft", "helpful"))
    prompts = shuffle.sample(corpus.helpful.train, len(corpus.helpful.train))
    if settings.sft.helpful_source is HelpfulSource.model:
        asked = prompts[: -(-n_helpful // SAMPLES)]
        helpful = _sampled(settings, model, inputs.helpful, asked, out)[:n_helpful]
        if len(helpful) < n_helpful:
            whole = "sft: %d helpful answers of the model are whole, %d wanted"
            log.warning(whole, len(helpful), n_helpful)
    else:
        repeated = itertools.islice(itertools.cycle(prompts), n_helpful)
        helpful = [(example.prompt.conversation, example.response) for example in repeated]
    examples = [_tree(model, *pair) for pair in (*revisions, *helpful)]
    log.info("sft: %d revisions and %d helpful answers", len(revisions), len(helpful))

    start = inputs.helpful.model if settings.sft.start is Start.helpful else None
    if settings.sft.full_finetuning:
        model.add_whole(ADAPTER, start)
    else:
        model.add_adapter(ADAPTER, seed_of(settings.seed, "sft", "adapter"), start)
    held_out = [
        _tree(model, example.prompt.conversation, example.response)
        for example in corpus.helpful.validation
    ]
    tokens = job.hardware.micro_tokens
    with model.use(ADAPTER):
        order = Order(tokens, seed_of(settings.seed, "sft", "order"))
        module = SFTModule(model, ADAPTER, examples, settings.sft, order)
        fit(module, Fit("sft", out.path, job.tracker.metrics), job.hardware, job.trainer)
        loss = mean_loss(model, held_out, tokens)
    save_model(model, ADAPTER, out.model)
    out.history.write(module.history)
    out.metrics.write(SFTMetrics(len(revisions), len(helpful), loss))
    job.tracker.metrics({"held_out_helpful_loss": loss}, module.n_steps)


def _revisions(settings: SFTConfig, rows: Sequence[Revision]) -> Pairs:
    pairs = [pair for row in rows for pair in usable_revisions(row, settings)]
    if rows and not rows[0].rounds:
        raise UserError(
            "revise.rounds=0 makes no revision to train on: use at least 1 for stage=sft and later"
        )
    if not pairs:
        raise UserError(
            "no revision is left after the guards: look at yield.json of the revise stage, switch "
            "off a guard in revise.guards, or raise revise.prompts"
        )
    return pairs


def usable_revisions(row: Revision, settings: SFTConfig) -> Pairs:
    """Return a row's prompt with each revision that is fit for training."""
    steps = [step for step in row.rounds if step.round <= settings.up_to_round]
    chosen = steps[-1:] if settings.revisions is Revisions.last else steps
    return [(row.messages, step.revision) for step in chosen if not step.faults]


def _sampled(
    settings: SFTSettings,
    model: LanguageModel,
    assistant: HelpfulAssistant,
    examples: Sequence[Example],
    out: SLCAI,
) -> Pairs:
    """Let the helpful assistant answer prompts; what it did not finish is left out."""
    adapter = HELPFUL if has_adapter(assistant.model) else None
    if adapter is not None:
        model.add_adapter(adapter, 0, assistant.model)
    asked = [(example.prompt, sample) for example in examples for sample in range(SAMPLES)]
    sampling = Sampling(ANSWER_TOKENS, temperature=settings.model.temperature)

    def answer(part: range) -> list[HelpfulAnswer]:
        talks = [asked[i][0].conversation for i in part]
        seeds = [seed_of(settings.seed, "sft", asked[i][0].id, asked[i][1]) for i in part]
        replies = sample_replies(model, adapter, talks, seeds, sampling)
        return [
            HelpfulAnswer(asked[i][0].id, asked[i][1], reply.text, reply.finished)
            for i, reply in zip(part, replies, strict=True)
        ]

    rows = make_rows(out.helpful_answers, len(asked), 64, answer, "helpful answers")
    # A reply that was cut off in mid-sentence would teach the model to stop there.
    return [
        (prompt.conversation, row.response)
        for (prompt, _), row in zip(asked, rows, strict=True)
        if row.response and (row.finished or ends_a_sentence(row.response))
    ]


def _tree(model: LanguageModel, conversation: Conversation, reply: str) -> Tree:
    return Tree(model.chat.prompt(conversation), [model.chat.response(reply)])
