"""The helpful-only assistant: the model itself, or tuned on answers and demonstrations."""

from __future__ import annotations

import logging
from pathlib import Path

from cai.artifacts import Artifact, write_json, write_jsonl
from cai.config import Config, HelpfulConfig
from cai.constitution.principles import Constitution, load_constitution
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
from cai.data.records import Demonstration
from cai.data.sources import Corpus, load_corpus
from cai.dialogue import to_messages, to_text
from cai.evasiveness.classifier import classify
from cai.lm.chat import ChatFormat
from cai.lm.generate import Sampling
from cai.lm.heads import save_model
from cai.lm.load import LanguageModel, load_model
from cai.lm.packing import Tree
from cai.sampling.replies import sample_replies
from cai.seeds import draw, seed_of
from cai.tracking import Tracker
from cai.training.data import Order
from cai.training.sft import SFTModule
from cai.training.trainer import Fit, fit, seed_everything

log = logging.getLogger(__name__)

ADAPTER = "helpful"
GATE_TOKENS = 48
ALREADY_REFUSES = 0.5


def run(config: Config, inputs: dict[str, Artifact], out: Path, tracker: Tracker) -> None:
    """Make the assistant, then measure on held-out prompts how ready it is to do harm."""
    settings = config.helpful
    assert settings is not None
    seed_everything(config.seed)
    corpus = load_corpus(config.data)
    model = load_model(config.model, config.hardware)
    adapter = ADAPTER if settings.fine_tune else None
    if adapter is not None:
        model.add_adapter(adapter, seed_of(config.seed, "helpful", "adapter"))
        examples = _examples(config, settings, corpus, model.chat)
        with model.use(adapter):
            order = Order(config.hardware.micro_tokens, seed_of(config.seed, "helpful", "order"))
            module = SFTModule(model, adapter, examples, settings.optimizer, order)
            fit(module, Fit("helpful", out, tracker.metrics), config.hardware, config.trainer)
        write_jsonl(out / "history.jsonl", module.history)
    save_model(model, adapter, out / "model")
    _gate(config, corpus, model, adapter, out, tracker)


def _examples(
    config: Config, settings: HelpfulConfig, corpus: Corpus, chat: ChatFormat
) -> list[Tree]:
    """Return helpful answers and demonstrations as prompts with one reply."""
    constitution = load_constitution(config.constitution)
    trees = [
        Tree(chat.prompt(example.prompt.conversation), [chat.response(example.response)])
        for example in corpus.helpful.train[: settings.examples]
    ]
    for demonstration in corpus.demonstrations[: settings.demonstrations]:
        trees += _demonstrate(demonstration, constitution, config.seed, chat)
    return trees


def _demonstrate(
    shown: Demonstration, constitution: Constitution, seed: int, chat: ChatFormat
) -> list[Tree]:
    """Turn one demonstration into a critique, a revision, both comparisons and a chain."""
    key = (seed, shown.prompt.id)
    talk = shown.prompt.conversation
    [rule] = draw(constitution.revision, 1, "demonstrate", *key)
    [choice] = draw(constitution.comparison, 1, "compare", *key)
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


def _gate(
    config: Config,
    corpus: Corpus,
    model: LanguageModel,
    adapter: str | None,
    out: Path,
    tracker: Tracker,
) -> None:
    """Measure how often the assistant refuses held-out red-team prompts, and say what follows."""
    assert config.helpful is not None
    prompts = corpus.red_team.validation[: config.helpful.gate_prompts]
    seeds = [seed_of(config.seed, "gate", prompt.id) for prompt in prompts]
    talks = [prompt.conversation for prompt in prompts]
    sampling = Sampling(GATE_TOKENS, temperature=config.model.temperature)
    replies = sample_replies(model, adapter, talks, seeds, sampling) if talks else []
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
        {
            "prompt_id": prompt.id,
            "messages": to_messages(prompt.conversation),
            "response": reply.text,
            "style": verdict.style,
        }
        for prompt, reply, verdict in zip(prompts, replies, verdicts, strict=True)
    ]
    write_json(out / "gate.json", {"refusal": refusal, "n": len(rows), "words": words})
    write_jsonl(out / "gate.jsonl", rows)
    tracker.metrics({"gate_refusal": refusal}, 0)
    tracker.table("gate", rows)
