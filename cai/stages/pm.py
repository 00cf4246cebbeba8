"""The preference model, its twin on the other half of the data, and what both know."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from cai.config import BadRows, Labels, PMConfig
from cai.contracts.cards import preference_model_card
from cai.contracts.preferences import (
    PMFolder,
    PMInputs,
    PMStageSettings,
    PreferenceModels,
)
from cai.data.pairs import SOURCE, read_pairs
from cai.data.records import Comparison
from cai.data.sources import Corpus, load_corpus
from cai.data.splits import family
from cai.errors import UserError
from cai.files import write_text
from cai.lm.heads import ScalarHead, ScalarModel, own_network
from cai.lm.load import LanguageModel, load_chat, load_model
from cai.lm.usage import scoring_code
from cai.pipeline.stage import Job
from cai.results.labels import PMMetrics, PMSettings
from cai.sampling.fitting import Fitting
from cai.seeds import seed_of
from cai.tracking import Tracker
from cai.training.data import Order
from cai.training.pm_metrics import evaluate
from cai.training.preference import PairExample, PreferenceModule, pair_tree
from cai.training.records import Record
from cai.training.reward import adapter_name
from cai.training.trainer import Fit, fit, seed_everything

log = logging.getLogger(__name__)


ROOMS = {"helpful_pairs": 0, "harmless_pairs": 0}
"""Nothing is said to the comparisons that it reads."""


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


def notes(settings: PMStageSettings) -> list[str]:
    """Say which rows do not fit."""
    fitting = Fitting(load_chat(settings.base), settings.data.too_long, "pm")
    return fitting.notes(load_corpus(settings.data), ROOMS)


def run(settings: PMStageSettings, inputs: PMInputs, out: PreferenceModels, job: Job) -> None:
    """Train the PM and, on comparisons it never sees, the twin that judges."""
    seed_everything(settings.seed)
    model = load_model(settings.base, job.hardware)
    fitting = Fitting(model.chat, settings.data.too_long, "pm")
    corpus = fitting.corpus(load_corpus(settings.data), ROOMS)
    pm = settings.pm
    training = _comparisons(settings, corpus, inputs)
    if pm.pretrain:
        training += pretraining(Path(pm.pretrain), corpus, model, settings.data.bad_rows)
    halves = halve(training, settings.seed) if pm.holdout_twin else [training]
    held_out = _held_out(corpus)
    out.settings.write(PMSettings(pm.ensemble.lower_bound, pm.base))
    for name, comparisons in zip(("model", "twin"), halves, strict=False):
        first = [comparison for comparison in comparisons if comparison.source == SOURCE]
        own = [comparison for comparison in comparisons if comparison.source != SOURCE]
        for member in range(pm.ensemble.members if own else 0):
            folder = out.named(name if member == 0 else f"{name}-{member}")
            _train(settings, model, folder, Lessons(first, own, held_out), job)


def _comparisons(settings: PMStageSettings, corpus: Corpus, inputs: PMInputs) -> list[Comparison]:
    """Return the training comparisons of both kinds."""
    pm, recipe = settings.pm, settings.recipe
    comparisons: list[Comparison] = []
    if pm.mixture.helpful:
        comparisons += corpus.helpful_pairs.train[: pm.helpful_pairs]
    if pm.mixture.harmless and inputs.feedback is not None:
        comparisons += map(Comparison.from_row, inputs.feedback.comparisons.read())
    if pm.mixture.harmless and recipe.labels is Labels.human:
        comparisons += corpus.harmless_pairs.train
    if not comparisons:
        raise UserError(
            f"pm has nothing to train on: recipe.labels={recipe.labels.value} with this pm.mixture "
            "leaves no comparison; set pm.mixture.helpful or recipe.labels"
        )
    return comparisons


def pretraining(path: Path, corpus: Corpus, model: LanguageModel, bad: BadRows) -> list[Comparison]:
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
    pairs = read_pairs(path, "pm.pretrain", bad)
    kept = []
    for where, _, pair in pairs:
        _check_length(model, pair, where)
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
) -> list[PairExample]:
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
        pairs.append(PairExample(tree, comparison.probability, weight, comparison.source))
    return pairs


def _train(
    settings: PMStageSettings,
    model: LanguageModel,
    folder: PMFolder,
    lessons: Lessons,
    job: Job,
) -> None:
    """Train one PM, measure it on held-out comparisons and write its folder."""
    if folder.card.exists():  # the last file of a finished PM
        return
    folder.path.mkdir(exist_ok=True)
    name = adapter_name(folder.path)
    scorer = _untrained(settings, model, name, job)
    folder.comparisons.write(comparison.to_row() for comparison in lessons.own)
    pairs = weighted_pairs(model, lessons.own, settings.pm)
    record = recorder(job.tracker, name)
    tokens = job.hardware.micro_tokens
    with scorer.model.use(scorer.adapter):
        if lessons.first:
            _pretrain(settings, scorer, folder, lessons.first, job)
        order = Order(tokens, seed_of(settings.seed, name, "order"))
        module = PreferenceModule(scorer, pairs, settings.pm, order)
        fit(module, Fit(name, folder.path, record), job.hardware, job.trainer)
        known = evaluate(scorer.model, scorer.head, lessons.held_out, tokens)
    trained = {
        source: sum(pair.source == source for pair in pairs) for source in ("harmless", "helpful")
    }
    metrics = replace(known, trained_on=trained, pretrained_on=len(lessons.first))
    scorer.save(folder.path)
    folder.history.write(module.history)
    folder.metrics.write(metrics)
    record(_flat(metrics), module.n_steps)
    code = scoring_code(scorer.model, scorer.adapter is None, metrics.mean)
    write_text(folder.card, preference_model_card(settings, metrics, code))


def _flat(metrics: PMMetrics) -> dict[str, float]:
    return {
        f"{source.name}/{key}": getattr(source, key)
        for source in metrics.sources
        for key in ("loss", "accuracy", "ece")
    }


def _untrained(settings: PMStageSettings, model: LanguageModel, name: str, job: Job) -> ScalarModel:
    """Make a new adapter on the base, or load the base again to train all of it; add a head."""
    seed = seed_of(settings.seed, name, "head")
    head = ScalarHead(model.hidden_size, seed).to(model.device)
    if settings.pm.full_finetuning:
        return ScalarModel(own_network(settings.base, job.hardware), None, head)
    model.add_adapter(name, seed_of(settings.seed, name))
    return ScalarModel(model, name, head)


def recorder(tracker: Tracker, name: str) -> Record:
    """Return what hands the numbers of a training to the tracker, below a name of its own."""

    def record(values: Mapping[str, float], step: int) -> None:
        tracker.metrics({f"{name}/{key}": value for key, value in values.items()}, step)

    return record


def _pretrain(
    settings: PMStageSettings,
    scorer: ScalarModel,
    whole: PMFolder,
    comparisons: Sequence[Comparison],
    job: Job,
) -> None:
    """Train a PM for one epoch on other comparisons, each weighing the same.

    Preference model pre-training (Askell et al. 2021). The result is kept in a folder, from which
    a run that was killed later takes it.
    """
    name, folder = adapter_name(whole.path), whole.pretrained
    if folder.history.exists():
        scorer.restore(folder.path)
        return
    folder.path.mkdir(exist_ok=True)
    pm = replace(settings.pm, epochs=1.0)
    trees = [pair_tree(scorer.model, comparison) for comparison in comparisons]
    pairs = [
        PairExample(tree, c.probability, 1.0, c.source)
        for tree, c in zip(trees, comparisons, strict=True)
    ]
    order = Order(job.hardware.micro_tokens, seed_of(settings.seed, name, "pretrained"))
    record = recorder(job.tracker, f"{name}/pretrain")
    module = PreferenceModule(scorer, pairs, pm, order)
    fit(module, Fit(f"{name} pretrained", folder.path, record), job.hardware, job.trainer)
    scorer.save(folder.path)
    folder.history.write(module.history)
