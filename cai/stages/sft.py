"""SL-CAI: fine-tuning on the revisions and on helpful answers."""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Sequence
from pathlib import Path

from cai.artifacts import Artifact, read_jsonl, write_json, write_jsonl
from cai.config import Config, HelpfulSource, Revisions, SFTConfig, Start
from cai.constitution.guards import ends_a_sentence
from cai.data.records import Example
from cai.data.sources import load_corpus
from cai.dialogue import Conversation
from cai.errors import UserError
from cai.lm.generate import Sampling
from cai.lm.heads import save_model
from cai.lm.load import LanguageModel, has_adapter, load_model
from cai.lm.packing import Tree
from cai.sampling.replies import sample_replies
from cai.sampling.shards import Row, make_rows
from cai.seeds import seed_of
from cai.stages.revise import usable_revisions
from cai.tracking import Tracker
from cai.training.data import Order
from cai.training.sft import SFTModule, mean_loss
from cai.training.trainer import Fit, fit, seed_everything

log = logging.getLogger(__name__)

ADAPTER = "sft"
HELPFUL = "helpful"
SAMPLES = 2
"""Replies of the helpful model per helpful prompt, as in the paper."""

Pairs = list[tuple[Conversation, str]]


def run(config: Config, inputs: dict[str, Artifact], out: Path, tracker: Tracker) -> None:
    """Train one epoch on the mixture and measure the loss on held-out helpful answers."""
    settings = config.sft
    assert settings is not None
    seed_everything(config.seed)
    corpus = load_corpus(config.data)
    model = load_model(config.model, config.hardware)
    revisions = _revisions(settings, read_jsonl(inputs["revise"].path / "revisions.jsonl"))
    n_helpful = round(len(revisions) * settings.helpful_per_revision)
    helpful = _helpful(config, model, inputs["helpful"], corpus.helpful.train, n_helpful, out)
    examples = [_tree(model, *pair) for pair in (*revisions, *helpful)]
    log.info("sft: %d revisions and %d helpful answers", len(revisions), len(helpful))

    start = inputs["helpful"].path / "model" if settings.start is Start.helpful else None
    model.add_adapter(ADAPTER, seed_of(config.seed, "sft", "adapter"), start)
    held_out = [
        _tree(model, example.prompt.conversation, example.response)
        for example in corpus.helpful.validation
    ]
    with model.use(ADAPTER):
        order = Order(config.hardware.micro_tokens, seed_of(config.seed, "sft", "order"))
        module = SFTModule(model, ADAPTER, examples, settings.optimizer, order)
        fit(module, Fit("sft", out, tracker.metrics), config.hardware, config.trainer)
        loss = mean_loss(model, held_out, config.hardware.micro_tokens)
    save_model(model, ADAPTER, out / "model")
    write_jsonl(out / "history.jsonl", module.history)
    write_json(
        out / "metrics.json",
        {"revisions": len(revisions), "helpful": len(helpful), "held_out_helpful_loss": loss},
    )
    tracker.metrics({"held_out_helpful_loss": loss}, module.n_steps)


def _revisions(settings: SFTConfig, rows: Sequence[Row]) -> Pairs:
    last_only = settings.revisions is Revisions.last
    pairs = [
        pair for row in rows for pair in usable_revisions(row, settings.up_to_round, last_only)
    ]
    if rows and not rows[0]["rounds"]:
        raise UserError(
            "revise.rounds=0 makes no revision to train on: use at least 1 for stage=sft and later"
        )
    if not pairs:
        raise UserError(
            "no revision is left after the guards: look at yield.json of the revise stage, switch "
            "off a guard in revise.guards, or raise revise.prompts"
        )
    return pairs


def _helpful(
    config: Config,
    model: LanguageModel,
    assistant: Artifact,
    examples: Sequence[Example],
    n: int,
    out: Path,
) -> Pairs:
    """Return ``n`` helpful answers, by people or by the helpful model."""
    assert config.sft is not None
    order = random.Random(seed_of(config.seed, "sft", "helpful")).sample(examples, len(examples))
    if config.sft.helpful_source is HelpfulSource.human:
        repeated = itertools.islice(itertools.cycle(order), n)
        return [(example.prompt.conversation, example.response) for example in repeated]
    prompts = [example.prompt for example in order][: -(-n // SAMPLES)]
    adapter = HELPFUL if has_adapter(assistant.path / "model") else None
    if adapter is not None:
        model.add_adapter(adapter, 0, assistant.path / "model")
    asked = [(prompt, sample) for prompt in prompts for sample in range(SAMPLES)]

    sampling = Sampling(128, temperature=config.model.temperature)

    def answer(part: range) -> list[Row]:
        talks = [asked[i][0].conversation for i in part]
        seeds = [seed_of(config.seed, "sft", asked[i][0].id, asked[i][1]) for i in part]
        replies = sample_replies(model, adapter, talks, seeds, sampling)
        return [
            {
                "prompt_id": asked[i][0].id,
                "sample": asked[i][1],
                "response": reply.text,
                "finished": reply.finished,
            }
            for i, reply in zip(part, replies, strict=True)
        ]

    rows = make_rows(out / "helpful.jsonl", len(asked), 32, answer, "helpful answers")
    # A reply that was cut off in mid-sentence would teach the model to stop there.
    whole = [
        (prompt.conversation, row["response"])
        for (prompt, _), row in zip(asked, rows, strict=True)
        if row["response"] and (row["finished"] or ends_a_sentence(row["response"]))
    ]
    if len(whole) < n:
        log.warning("sft: %d helpful answers of the model are whole, %d wanted", len(whole), n)
    return whole[:n]


def _tree(model: LanguageModel, conversation: Conversation, reply: str) -> Tree:
    return Tree(model.chat.prompt(conversation), [model.chat.response(reply)])
