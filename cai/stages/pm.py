"""The preference model, its twin on the other half of the data, and what both know."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from cai.artifacts import Artifact, read_jsonl, write_json, write_jsonl
from cai.config import Config, Labels, PMConfig
from cai.data.pairs import SOURCE, read_pairs
from cai.data.records import Comparison
from cai.data.sources import Corpus, load_corpus
from cai.data.splits import family
from cai.errors import UserError
from cai.lm.cards import preference_model_card
from cai.lm.heads import ScalarHead, ScalarModel, own_network
from cai.lm.load import LanguageModel, load_model
from cai.seeds import seed_of
from cai.tracking import Tracker
from cai.training.data import Order
from cai.training.pm_metrics import evaluate
from cai.training.preference import LabelledPair, PreferenceModule, pair_tree
from cai.training.records import Record
from cai.training.trainer import Fit, fit, seed_everything

log = logging.getLogger(__name__)

COMPARISONS = "comparisons.jsonl"
"""What a PM was trained on, kept beside it: DPO learns from the same."""
PRETRAINED = "pretrained"
"""Folder of the PM as it was before its own comparisons."""


class Lessons(NamedTuple):
    """What one PM learns from and is measured on.

    Attributes:
        first: Comparisons of preference model pre-training; none if it is left out.
        own: Comparisons of the recipe.
        held_out: By kind.
    """

    first: list[Comparison]
    own: list[Comparison]
    held_out: dict[str, list[Comparison]]


def run(config: Config, inputs: dict[str, Artifact], out: Path, tracker: Tracker) -> None:
    """Train the PM and, on comparisons it never sees, the twin that judges."""
    settings = config.pm
    assert settings is not None
    seed_everything(config.seed)
    corpus = load_corpus(config.data)
    model = load_model(config.model, config.hardware)
    training = _comparisons(config, corpus, inputs)
    if settings.pretrain:
        training += pretraining(Path(settings.pretrain), corpus, model)
    halves = halve(training, config.seed) if settings.holdout_twin else [training]
    held_out = _held_out(corpus)
    write_json(out / "settings.json", {"lower_bound": settings.lower_bound})
    for name, comparisons in zip(("model", "twin"), halves, strict=False):
        first = [comparison for comparison in comparisons if comparison.source == SOURCE]
        own = [comparison for comparison in comparisons if comparison.source != SOURCE]
        for member in range(settings.members if own else 0):
            folder = out / (name if member == 0 else f"{name}-{member}")
            _train(config, model, folder, Lessons(first, own, held_out), tracker)


def _comparisons(config: Config, corpus: Corpus, inputs: dict[str, Artifact]) -> list[Comparison]:
    """Return the training comparisons of both kinds."""
    settings, recipe = config.pm, config.recipe
    assert settings is not None
    comparisons: list[Comparison] = []
    if settings.mixture.helpful:
        comparisons += corpus.helpful_pairs.train[: settings.helpful_pairs]
    if settings.mixture.harmless and recipe.labels is Labels.ai:
        rows = read_jsonl(inputs["feedback"].path / "comparisons.jsonl")
        comparisons += [Comparison.from_row(row) for row in rows]
    if settings.mixture.harmless and recipe.labels is Labels.human:
        comparisons += corpus.harmless_pairs.train
    if not comparisons:
        raise UserError(
            f"pm has nothing to train on: recipe.labels={recipe.labels.value} with this pm.mixture "
            "leaves no comparison; set pm.mixture.helpful or recipe.labels"
        )
    return comparisons


def pretraining(path: Path, corpus: Corpus, model: LanguageModel) -> list[Comparison]:
    """Read the comparisons to learn from first; those on prompts that the corpus holds out go.

    Raises:
        UserError: If one is malformed or too long, with file and line, or if none is left.
    """
    records: list[Any] = []
    for part in (corpus.red_team, corpus.borderline):
        records += part.validation + part.test
    for kind in (corpus.helpful, corpus.helpful_pairs, corpus.harmless_pairs):
        records += [record.prompt for record in (*kind.validation, *kind.test)]
    held_out = {family(prompt.conversation) for prompt in records}
    pairs = read_pairs(path)
    kept = []
    for line, pair in pairs.items():
        _check_length(model, pair, f"{path}:{line}")
        if family(pair.prompt.conversation) not in held_out:
            kept.append(pair)
    if len(kept) < len(pairs):
        log.warning("%s: %d comparisons on held-out prompts left out", path, len(pairs) - len(kept))
    if not kept:
        raise UserError(f"pm.pretrain={path} has only comparisons on prompts that are held out")
    return kept


def _check_length(model: LanguageModel, pair: Comparison, where: str) -> None:
    try:
        tree = pair_tree(model, pair)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    length = len(tree.prompt) + max(map(len, tree.responses))
    if length > model.chat.context:
        raise UserError(
            f"{where}: prompt and reply have {length} tokens, and model.context is "
            f"{model.chat.context}: shorten them or raise model.context"
        )


def halve(comparisons: Sequence[Comparison], seed: int) -> list[list[Comparison]]:
    """Divide comparisons in two by prompt, each kind evenly.

    A prompt that is of several kinds is on one side with all of them.
    """
    halves: list[list[Comparison]] = [[], []]
    side_of: dict[str, int] = {}
    for source in sorted({comparison.source for comparison in comparisons}):
        chosen = [comparison for comparison in comparisons if comparison.source == source]
        families = sorted({family(comparison.prompt.conversation) for comparison in chosen})
        new = [name for name in families if name not in side_of]
        random.Random(seed_of(seed, "halves", source)).shuffle(new)
        side_of |= {name: number % 2 for number, name in enumerate(new)}
        for comparison in chosen:
            halves[side_of[family(comparison.prompt.conversation)]].append(comparison)
    return [half for half in halves if half]


def _held_out(corpus: Corpus) -> dict[str, list[Comparison]]:
    return {
        "helpful": corpus.helpful_pairs.validation + corpus.helpful_pairs.test,
        "harmless": corpus.harmless_pairs.validation + corpus.harmless_pairs.test,
    }


def weighted_pairs(
    model: LanguageModel, comparisons: Sequence[Comparison], settings: PMConfig
) -> list[LabelledPair]:
    """Encode comparisons; the weights of a kind add up to its share of the mixture.

    With shares of 1 and 1 both kinds weigh the same in the loss, whatever their numbers.
    """
    shares = {"harmless": settings.mixture.harmless, "helpful": settings.mixture.helpful}
    counts = Counter(comparison.source for comparison in comparisons)
    total = sum(share for source, share in shares.items() if source in counts)
    pairs = []
    for comparison in comparisons:
        share = shares[comparison.source] / total
        weight = share * len(comparisons) / counts[comparison.source]
        tree = pair_tree(model, comparison)
        pairs.append(LabelledPair(tree, comparison.probability, weight, comparison.source))
    return pairs


def _train(
    config: Config,
    model: LanguageModel,
    folder: Path,
    lessons: Lessons,
    tracker: Tracker,
) -> None:
    """Train one PM, measure it on held-out comparisons and write its folder."""
    settings = config.pm
    assert settings is not None
    if (folder / "README.md").exists():  # the last file of a finished PM
        return
    folder.mkdir(exist_ok=True)
    name = adapter_name(folder)
    scorer = _untrained(config, model, name)
    write_jsonl(folder / COMPARISONS, [comparison.to_row() for comparison in lessons.own])
    pairs = weighted_pairs(model, lessons.own, settings)
    record, record_first = (recorder(tracker, key) for key in (name, f"{name}/pretrain"))
    with scorer.model.use(scorer.adapter):
        if lessons.first:
            earlier = (folder / PRETRAINED, lessons.first)
            _pretrain(config, name, scorer, earlier, record_first)
        order = Order(config.hardware.micro_tokens, seed_of(config.seed, name, "order"))
        module = PreferenceModule(scorer, pairs, settings, order)
        fit(module, Fit(name, folder, record), config.hardware, config.trainer)
        metrics = evaluate(
            scorer.model, scorer.head, lessons.held_out, config.hardware.micro_tokens
        )
    metrics["trained_on"] = {
        source: sum(pair.source == source for pair in pairs) for source in ("harmless", "helpful")
    }
    metrics["pretrained_on"] = len(lessons.first)
    scorer.save(folder)
    write_jsonl(folder / "history.jsonl", module.history)
    write_json(folder / "metrics.json", metrics)
    flat = {
        f"{s['name']}/{k}": s[k] for s in metrics["sources"] for k in ("loss", "accuracy", "ece")
    }
    record(flat, module.n_steps)
    (folder / "README.md").write_text(preference_model_card(config, metrics), encoding="utf-8")


def _untrained(config: Config, model: LanguageModel, name: str) -> ScalarModel:
    """Make a new adapter on the base, or load the base again to train all of it; add a head."""
    assert config.pm is not None
    head = ScalarHead(model.hidden_size, seed_of(config.seed, name, "head")).to(model.device)
    if config.pm.full_finetuning:
        return ScalarModel(own_network(config.model, config.hardware), None, head)
    model.add_adapter(name, seed_of(config.seed, name))
    return ScalarModel(model, name, head)


def recorder(tracker: Tracker, name: str) -> Record:
    """Return what hands the numbers of a training to the tracker, below a name of its own."""

    def record(values: Mapping[str, float], step: int) -> None:
        tracker.metrics({f"{name}/{key}": value for key, value in values.items()}, step)

    return record


def _pretrain(
    config: Config,
    name: str,
    scorer: ScalarModel,
    data: tuple[Path, Sequence[Comparison]],
    record: Record,
) -> None:
    """Train a PM for one epoch on other comparisons, each weighing the same.

    Preference model pre-training (Askell et al. 2021). The result is kept in a folder, from which
    a run that was killed later takes it.
    """
    assert config.pm is not None
    folder, comparisons = data
    finished = folder / "history.jsonl"
    if finished.exists():
        scorer.restore(folder)
        return
    folder.mkdir(exist_ok=True)
    settings = replace(config.pm, optimizer=replace(config.pm.optimizer, epochs=1.0))
    trees = [pair_tree(scorer.model, comparison) for comparison in comparisons]
    pairs = [
        LabelledPair(tree, c.probability, 1.0, c.source)
        for tree, c in zip(trees, comparisons, strict=True)
    ]
    order = Order(config.hardware.micro_tokens, seed_of(config.seed, name, PRETRAINED))
    module = PreferenceModule(scorer, pairs, settings, order)
    fit(module, Fit(f"{name} {PRETRAINED}", folder, record), config.hardware, config.trainer)
    scorer.save(folder)
    write_jsonl(finished, module.history)


def adapter_name(folder: Path) -> str:
    """Name a PM's adapter; a bare "model" would collide with a part of the network."""
    return "pm_" + folder.name.replace("-", "_")
