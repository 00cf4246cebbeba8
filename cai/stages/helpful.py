"""The helpful-only assistant: the model itself, or tuned on answers and demonstrations."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TypeVar

from cai.config import ComparisonPrinciple, RevisionPrinciple
from cai.constitution.prompts import (
    ANSWERS,
    CHAIN_ANSWERS,
    chain_answer,
    chain_question,
    comparison_question,
    critique_request,
    fill_reasoning,
    revision_request,
)
from cai.contracts.assistants import HelpfulAssistant, HelpfulSettings, NoInputs
from cai.data.records import Demonstration
from cai.data.sources import Corpus, Principles, load_corpus
from cai.dialogue import to_text
from cai.evasiveness.classifier import classify
from cai.jsonl import to_json
from cai.lm.chat import ChatFormat
from cai.lm.generate import Sampling
from cai.lm.heads import save_model
from cai.lm.load import LanguageModel, load_chat
from cai.lm.packing import Tree
from cai.pipeline.stage import Job
from cai.results.revisions import Gate, GateReply
from cai.sampling.fitting import Fitting
from cai.sampling.replies import sample_replies
from cai.sampling.speaker import load_speaker
from cai.seeds import draw, seed_of
from cai.training.data import Order
from cai.training.sft import SFTModule
from cai.training.trainer import Fit, fit, seed_everything

log = logging.getLogger(__name__)

Principle = TypeVar("Principle", RevisionPrinciple, ComparisonPrinciple)

ADAPTER = "helpful"
GATE_TOKENS = 48
ROOMS = {"red_team": GATE_TOKENS, "helpful": 0}
ALREADY_REFUSES = 0.5


def notes(settings: HelpfulSettings) -> list[str]:
    """Say which rows do not fit."""
    fitting = Fitting(load_chat(settings.model), settings.data.too_long, "helpful")
    return fitting.notes(load_corpus(settings.data), ROOMS)


def run(settings: HelpfulSettings, inputs: NoInputs, out: HelpfulAssistant, job: Job) -> None:
    """Make the assistant, then measure on held-out prompts how ready it is to do harm."""
    seed_everything(settings.data.seed)
    model = load_speaker(settings.model, job)
    fitting = Fitting(model.chat, settings.data.too_long, "helpful")
    corpus = fitting.corpus(load_corpus(settings.data), ROOMS)
    adapter = ADAPTER if settings.helpful.fine_tune else None
    if adapter is not None:
        model.add_adapter(adapter, seed_of(settings.data.seed, "helpful", "adapter"))
        examples = _examples(settings, corpus, model.chat)
        with model.use(adapter):
            order = Order(
                job.hardware.micro_tokens, seed_of(settings.data.seed, "helpful", "order")
            )
            module = SFTModule(model, adapter, examples, settings.helpful.optimizer, order)
            fit(module, Fit("helpful", out.path, job.tracker.metrics), job.hardware, job.trainer)
        out.history.write(module.history)
    save_model(model, adapter, out.model)
    _gate(settings, corpus, (model, adapter), out, job)


def _examples(settings: HelpfulSettings, corpus: Corpus, chat: ChatFormat) -> list[Tree]:
    """Return helpful answers and demonstrations as prompts with one reply."""
    trees = [
        Tree(chat.prompt(example.prompt.conversation), [chat.response(example.response)])
        for example in corpus.helpful.train[: settings.helpful.examples]
    ]
    for demonstration in corpus.demonstrations[: settings.helpful.demonstrations]:
        trees += _demonstrate(demonstration, corpus.principles, settings.data.seed, chat)
    return trees


def _demonstrate(
    shown: Demonstration, principles: Principles, seed: int, chat: ChatFormat
) -> list[Tree]:
    """Turn one demonstration into a critique, a revision, both comparisons and a chain."""
    key = (seed, shown.prompt.id)
    talk = shown.prompt.conversation
    rule = _named(principles.revision, shown.principle, "demonstrate", *key)
    choice = _named(principles.comparison, shown.comparison_principle, "compare", *key)
    critique = critique_request(talk, shown.response, rule)
    revision = revision_request(talk, shown.response, rule, shown.critique)
    trees = [
        Tree(chat.prompt(critique), [chat.response(shown.critique)]),
        Tree(chat.prompt(revision), [chat.response(shown.revision)]),
    ]
    for first in (0, 1):
        options = shown.options if first == 0 else shown.options[::-1]
        right = shown.better if first == 0 else 1 - shown.better
        question = comparison_question(talk, options, choice)
        [answer] = chat.options([ANSWERS[right]])
        trees.append(Tree(chat.prompt(*question), [[*answer, chat.stop_id]]))
    first = seed_of("chain", *key) % 2
    options = shown.options if first == 0 else shown.options[::-1]
    right = shown.better if first == 0 else 1 - shown.better
    question = chain_question(talk, options, choice)
    chain = fill_reasoning(shown.reasoning, first)
    trees.append(Tree(chat.prompt(*question), [chat.response(" " + chain)]))
    [answer] = chat.options([CHAIN_ANSWERS[right]])
    asked = chain_answer(question, chain, chat.dialect)
    trees.append(Tree(chat.prompt(*asked), [[*answer, chat.stop_id]]))
    return trees


def _named(principles: Sequence[Principle], name: str | None, *key: object) -> Principle:
    """Return the principle of that id; where none is named, one that is drawn."""
    found = [principle for principle in principles if principle.id == name]
    return (found or draw(principles, 1, *key))[0]


def _gate(
    settings: HelpfulSettings,
    corpus: Corpus,
    speaker: tuple[LanguageModel, str | None],
    out: HelpfulAssistant,
    job: Job,
) -> None:
    """Measure how often the assistant refuses held-out red-team prompts, and say what follows."""
    prompts = corpus.red_team.validation[: settings.helpful.gate_prompts]
    seeds = [seed_of(settings.data.seed, "gate", prompt.id) for prompt in prompts]
    talks = [prompt.conversation for prompt in prompts]
    sampling = Sampling(GATE_TOKENS, temperature=settings.model.temperature)
    replies = sample_replies(*speaker, talks, seeds, sampling) if talks else []
    verdicts = [
        classify(to_text(talk), reply.text) for talk, reply in zip(talks, replies, strict=True)
    ]
    refusal = sum(verdict.refusal for verdict in verdicts) / max(1, len(verdicts))
    if not verdicts:
        words = "not measured"
    elif refusal > ALREADY_REFUSES:
        words = f"the start model already refuses {refusal:.0%}: there is little to gain"
    else:
        words = f"the start model refuses {refusal:.0%} of held-out red-team prompts"
    log.info("helpful: %s", words)
    rows = [
        GateReply(prompt.id, prompt.conversation, reply.text, verdict.style.value)
        for prompt, reply, verdict in zip(prompts, replies, verdicts, strict=True)
    ]
    out.gate.write(Gate(refusal, len(rows), words))
    out.gate_replies.write(rows)
    job.tracker.metrics({"gate_refusal": refusal}, 0)
    job.tracker.table("gate", to_json(rows, list[GateReply]))
