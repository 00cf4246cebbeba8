"""The preference model, its twin on the other half of the data, and what both know."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from cai.algorithms.calibration import expected_calibration_error, fold, sigmoid
from cai.algorithms.preference import Pair, pairwise_accuracy, pairwise_loss
from cai.artifacts import Artifact, read_jsonl, write_json, write_jsonl
from cai.config import Config, Labels, PMConfig
from cai.constitution.principles import seed_of
from cai.data.records import Comparison
from cai.data.sources import Corpus, load_corpus
from cai.data.splits import family
from cai.errors import UserError
from cai.labelling.report import reliability_rows
from cai.lm.heads import ScalarHead, save_model
from cai.lm.load import LanguageModel, load_model
from cai.lm.packing import Tree
from cai.stages.cards import preference_model_card
from cai.tracking import Tracker
from cai.training.preference import LabelledPair, PreferenceModule, score_responses
from cai.training.trainer import fit, seed_everything

COMPARISONS = "comparisons.jsonl"
"""What a PM was trained on, kept beside it: DPO learns from the same."""


def run(config: Config, inputs: dict[str, Artifact], out: Path, tracker: Tracker) -> None:
    """Train the PM and, on comparisons it never sees, the twin that judges."""
    settings = config.pm
    assert settings is not None
    seed_everything(config.seed)
    corpus = load_corpus(config.data)
    training = _comparisons(config, corpus, inputs)
    halves = halve(training, config.seed) if settings.holdout_twin else [training]
    held_out = _held_out(config, corpus)
    write_json(out / "settings.json", {"lower_bound": settings.lower_bound})
    model = load_model(config.model, config.hardware)
    for name, comparisons in zip(("model", "twin"), halves, strict=False):
        for member in range(settings.members):
            folder = out / (name if member == 0 else f"{name}-{member}")
            _train(config, model, folder, (comparisons, held_out), tracker)


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


def halve(comparisons: Sequence[Comparison], seed: int) -> list[list[Comparison]]:
    """Divide comparisons in two by prompt, each kind evenly."""
    halves: list[list[Comparison]] = [[], []]
    for source in sorted({comparison.source for comparison in comparisons}):
        chosen = [comparison for comparison in comparisons if comparison.source == source]
        families = sorted({family(comparison.prompt.conversation) for comparison in chosen})
        random.Random(seed_of(seed, "halves", source)).shuffle(families)
        first = set(families[::2])
        for comparison in chosen:
            halves[family(comparison.prompt.conversation) not in first].append(comparison)
    return [half for half in halves if half]


def _held_out(config: Config, corpus: Corpus) -> dict[str, list[Comparison]]:
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
    present = {comparison.source for comparison in comparisons}
    total = sum(share for source, share in shares.items() if source in present)
    pairs = []
    for comparison in comparisons:
        n = sum(other.source == comparison.source for other in comparisons)
        weight = shares[comparison.source] / total * len(comparisons) / n
        tree = pair_tree(model, comparison)
        pairs.append(LabelledPair(tree, comparison.probability, weight, comparison.source))
    return pairs


def pair_tree(model: LanguageModel, comparison: Comparison) -> Tree:
    """Encode a comparison's prompt and both replies."""
    replies = [model.chat.response(reply) for reply in (comparison.a, comparison.b)]
    return Tree(model.chat.prompt(comparison.prompt.conversation), replies)


def _train(
    config: Config,
    model: LanguageModel,
    folder: Path,
    data: tuple[Sequence[Comparison], dict[str, list[Comparison]]],
    tracker: Tracker,
) -> None:
    """Train one PM, measure it on held-out comparisons and write its folder."""
    settings = config.pm
    assert settings is not None
    comparisons, held_out = data
    if (folder / "README.md").exists():  # the last file of a finished PM
        return
    folder.mkdir(exist_ok=True)
    adapter = adapter_name(folder)
    model.add_adapter(adapter, seed_of(config.seed, adapter))
    head = ScalarHead(model.hidden_size, seed_of(config.seed, adapter, "head")).to(model.device)
    write_jsonl(folder / COMPARISONS, [comparison.to_row() for comparison in comparisons])
    pairs = weighted_pairs(model, comparisons, settings)

    def record(values: Any, step: int) -> None:
        tracker.metrics({f"{adapter}/{key}": value for key, value in values.items()}, step)

    with model.use(adapter):
        plan = (config.hardware.micro_tokens, seed_of(config.seed, adapter, "order"))
        module = PreferenceModule(model, (adapter, head), pairs, settings, plan, record)
        fit(module, config.hardware, folder, adapter)
        metrics = evaluate(model, head, held_out, config.hardware.micro_tokens)
    metrics["trained_on"] = {
        source: sum(pair.source == source for pair in pairs) for source in ("harmless", "helpful")
    }
    save_model(model, adapter, folder, head)
    write_jsonl(folder / "history.jsonl", module.history)
    write_json(folder / "metrics.json", metrics)
    (folder / "README.md").write_text(preference_model_card(config, metrics), encoding="utf-8")
    flat = {
        f"{s['name']}/{k}": s[k] for s in metrics["sources"] for k in ("loss", "accuracy", "ece")
    }
    record(flat, module.n_steps)


def adapter_name(folder: Path) -> str:
    """Name a PM's adapter; a bare "model" would collide with a part of the network."""
    return "pm_" + folder.name.replace("-", "_")


def evaluate(
    model: LanguageModel,
    head: ScalarHead,
    held_out: dict[str, list[Comparison]],
    max_tokens: int,
) -> dict[str, Any]:
    """Measure loss, accuracy and calibration per kind, and the mean score that is taken off."""
    sources, everything = [], []
    lengths: list[float] = []
    predicted, truth = [], []
    for name, comparisons in held_out.items():
        if not comparisons:
            continue
        trees = [pair_tree(model, comparison) for comparison in comparisons]
        scores = score_responses(model, head, trees, max_tokens)
        a, b = (torch.tensor(side, dtype=torch.float64) for side in zip(*scores, strict=True))
        labels = torch.tensor([c.probability for c in comparisons], dtype=torch.float64)
        probabilities = sigmoid((a - b).numpy())
        folded = fold(probabilities, labels.numpy())
        sources.append(
            {
                "name": name,
                "n": len(comparisons),
                "loss": float(pairwise_loss(Pair(a, b), labels)),
                "accuracy": pairwise_accuracy(Pair(a, b), labels).rate,
                "ece": expected_calibration_error(*folded),
                "longer_wins": longer_wins(comparisons),
            }
        )
        predicted += list(folded[0])
        truth += list(folded[1])
        everything += [score for pair in scores for score in pair]
        lengths += [float(len(response)) for tree in trees for response in tree.responses]
    return {
        "sources": sources,
        "mean": statistics.fmean(everything),
        "std": statistics.pstdev(everything),
        "length_correlation": correlation(everything, lengths),
        "reliability": reliability_rows(predicted, truth),
    }


def longer_wins(comparisons: Sequence[Comparison]) -> float:
    """Accuracy of choosing the longer reply: the floor that a PM must beat."""
    right = [
        0.5 if len(c.a) == len(c.b) else float((len(c.a) > len(c.b)) == (c.probability > 0.5))
        for c in comparisons
        if c.probability != 0.5
    ]
    return statistics.fmean(right) if right else 0.5


def correlation(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Return Pearson's correlation; None where one side does not vary."""
    if len(set(x)) < 2 or len(set(y)) < 2:
        return None
    return statistics.correlation(x, y)
