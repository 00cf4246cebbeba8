"""Judges that read a frozen base: one direction of its hidden states for each axis.

A reward model whose body is not trained. On some hundred comparisons it ranks unseen pairs better
than an adapter, for there is little to fit, and it takes one forward pass over each comparison.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cai.algorithms.calibration import Array, fit_temperature, sigmoid
from cai.algorithms.probe import fit_direction
from cai.contracts.judges import JudgeModels
from cai.data.records import Comparison
from cai.data.splits import family
from cai.files import replacing
from cai.judging.judge import Judged
from cai.lm.language_model import LanguageModel
from cai.lm.packing import Tree
from cai.lm.prepared import Made, digest_of, taken
from cai.lm.states import end_states
from cai.results.common import AXES
from cai.training.preference import pair_tree

FILE = "readout.safetensors"
PREPARED = Path(__file__).with_name("readouts")
"""The directions that ship, by axis: of the default model and data."""
RECIPE = 1
"""Of a direction: another number where other states are read, or it is fitted in another way."""
SHRINKAGES = (0.03, 0.1, 0.3, 1.0, 3.0)
FOLDS = 5


class Direction(NamedTuple):
    """A score, w x - offset.

    Attributes:
        weights: w, [D]; differences of scores are log-odds.
        offset: Mean of w x over what it was fitted to.
        shrinkage: That was chosen.
    """

    weights: Array
    offset: float
    shrinkage: float

    @property
    def state(self) -> dict[str, Tensor]:
        """Return it as tensors."""
        return {
            name: torch.as_tensor(each, dtype=torch.float64)
            for name, each in self._asdict().items()
        }

    @staticmethod
    def of(state: Mapping[str, Tensor]) -> Direction:
        """Read what ``state`` gives."""
        offset, shrinkage = float(state["offset"]), float(state["shrinkage"])
        return Direction(state["weights"].numpy(), offset, shrinkage)


@dataclass(frozen=True)
class ReadoutJudge:
    """Scores replies by the base's states at their ends.

    Attributes:
        model: The base; no adapter of it is used.
        directions: By axis.
        max_tokens: Padded tokens in one forward pass.
    """

    model: LanguageModel
    directions: Mapping[str, Direction]
    max_tokens: int

    def score(self, axis: str, replies: Sequence[Judged]) -> list[float]:
        """Score replies; those to one conversation that follow each other share a reading of it."""
        if not replies:
            return []
        chat = self.model.chat
        trees = [
            Tree(chat.prompt(conversation), [chat.response(each.reply) for each in group])
            for conversation, group in groupby(replies, attrgetter("conversation"))
        ]
        direction = self.directions[axis]
        seen = np.concatenate(states(self.model, trees, self.max_tokens))
        return [float(x) for x in seen @ direction.weights - direction.offset]


def states(model: LanguageModel, trees: Sequence[Tree], max_tokens: int) -> list[Array]:
    """Return the states at the ends of the responses of each tree, [responses, D]."""
    with model.sampling(None) as network:
        found = end_states(network, trees, max_tokens)
    return [ends.double().numpy() for ends in found]


def fit_readout(
    model: LanguageModel, comparisons: Sequence[Comparison], max_tokens: int
) -> Direction:
    """Fit a direction to comparisons whose first reply is the better one.

    Shrinkage is that of the least loss in cross-validation by opening, and the temperature is
    fitted to the same predictions (Guo et al. 2017), so that held-out comparisons choose nothing.
    """
    both = np.stack(states(model, [pair_tree(model, c) for c in comparisons], max_tokens))
    gaps = both[:, 0] - both[:, 1]
    fold_of = _folds([family(c.prompt.conversation) for c in comparisons])
    ones = np.ones(len(gaps))
    losses = {}
    predicted = {s: _cross_validated(gaps, fold_of, s) for s in SHRINKAGES}
    temperatures = {s: fit_temperature(logits, ones * _certainty(len(gaps)))
                    for s, logits in predicted.items()}  # fmt: skip
    for s, logits in predicted.items():
        losses[s] = float(-np.log(sigmoid(logits / temperatures[s])).mean())
    best = min(losses, key=lambda s: losses[s])
    weights = fit_direction(gaps, best) / temperatures[best]
    return Direction(weights, float((both @ weights).mean()), best)


def _certainty(n: int) -> float:
    """Platt's (1999) target of a right answer, which keeps few pairs from being too sure."""
    return (n + 1) / (n + 2)


def _folds(families: Sequence[str]) -> Array:
    """Deal openings out to folds; comparisons of one opening are together."""
    order = {name: n % FOLDS for n, name in enumerate(dict.fromkeys(families))}
    return np.array([order[name] for name in families])


def _cross_validated(gaps: Array, fold_of: Array, shrinkage: float) -> Array:
    """Return the log-odds of each comparison by a direction that has not seen it."""
    found = np.zeros(len(gaps))
    for fold in np.unique(fold_of):
        held = fold_of == fold
        if held.all():
            continue
        found[held] = gaps[held] @ fit_direction(gaps[~held], shrinkage)
    return found


def made_for(model: LanguageModel, comparisons: Sequence[Comparison]) -> Made:
    """Name everything that decides what a direction is, besides the base."""
    return {
        "recipe": RECIPE,
        "prompt": model.chat.probe,
        "comparisons": digest_of(comparison.texts() for comparison in comparisons),
        "shrinkages": list(SHRINKAGES),
        "folds": FOLDS,
    }


def direction_of(
    model: LanguageModel, axis: str, comparisons: Sequence[Comparison], max_tokens: int
) -> Direction:
    """Return the direction that ships if it is of this base and these comparisons, or fit one."""
    ready = taken(model, made_for(model, comparisons), PREPARED / axis, FILE)
    return Direction.of(ready) if ready else fit_readout(model, comparisons, max_tokens)


def save_direction(direction: Direction, folder: Path) -> None:
    """Write a direction."""
    with replacing(folder / FILE) as scratch:
        save_file(direction.state, scratch)


def load_readout(model: LanguageModel, judge: JudgeModels, max_tokens: int) -> ReadoutJudge:
    """Load the directions that the judge stage fitted."""
    directions = {axis: Direction.of(load_file(judge.axis(axis).path / FILE)) for axis in AXES}
    return ReadoutJudge(model, directions, max_tokens)
