"""What a preference model knows: loss, accuracy and calibration on comparisons it never saw."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import torch

from cai.algorithms.calibration import expected_calibration_error, fold, sigmoid
from cai.algorithms.preference import Pair, pairwise_accuracy, pairwise_loss
from cai.data.records import Comparison
from cai.lm.heads import ScalarHead
from cai.lm.load import LanguageModel
from cai.results.labels import HeldOut, PMMetrics
from cai.results.reliability import bins_of
from cai.training.preference import pair_tree, score_responses


def evaluate(
    model: LanguageModel,
    head: ScalarHead,
    held_out: dict[str, list[Comparison]],
    max_tokens: int,
) -> PMMetrics:
    """Measure loss, accuracy and calibration per kind, and the mean score that is taken off.

    What it was trained on is not known here and left empty.
    """
    sources = []
    everything: list[float] = []
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
        flat = [score for pair in scores for score in pair]
        tokens = [float(len(response)) for tree in trees for response in tree.responses]
        sources.append(
            HeldOut(
                name=name,
                n=len(comparisons),
                loss=float(pairwise_loss(Pair(a, b), labels)),
                accuracy=pairwise_accuracy(Pair(a, b), labels).rate,
                ece=expected_calibration_error(*folded),
                longer_wins=longer_wins(comparisons),
                length_correlation=correlation(flat, tokens),
            )
        )
        predicted += list(folded[0])
        truth += list(folded[1])
        everything += flat
        lengths += tokens
    return PMMetrics(
        sources=sources,
        mean=statistics.fmean(everything),
        std=statistics.pstdev(everything),
        length_correlation=correlation(everything, lengths),
        reliability=bins_of(predicted, truth),
        trained_on={},
        pretrained_on=0,
    )


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
