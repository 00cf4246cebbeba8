"""The order of batches, decided before training starts, so that step k is the same after a kill."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from typing import NamedTuple

from torch.utils.data import Dataset

from cai import parallel
from cai.config import OptimizerConfig


class MicroBatch(NamedTuple):
    """What one forward and backward pass reads.

    Attributes:
        records: Indices of training records.
        batch: The optimizer step that it belongs to.
    """

    records: list[int]
    batch: int


def schedule_batches(
    lengths: Sequence[int], settings: OptimizerConfig, micro_tokens: int, seed: int
) -> list[list[MicroBatch]]:
    """Plan every optimizer step of a stage.

    Each epoch is a new permutation; the last batch is filled up with records of the next one, so
    that every batch has the same size. All steps have the same number of micro-batches, each of
    about ``micro_tokens`` padded tokens, and as many for every process.

    Args:
        lengths: Tokens of each record.
        settings: Batch size and epochs, which may be a fraction.
        micro_tokens: What fits in memory at once.
        seed: Of the permutations.
    """
    if not lengths:
        return []
    size = min(settings.batch_size, len(lengths))
    n_batches = math.ceil(len(lengths) * settings.epochs / size)
    shuffled = random.Random(seed)
    order: list[int] = []
    while len(order) < n_batches * size:
        order += shuffled.sample(range(len(lengths)), len(lengths))
    per_process = math.ceil(size * max(lengths) / micro_tokens / parallel.world())
    n_micro = min(size, per_process * parallel.world())
    steps = []
    for step in range(n_batches):
        batch = sorted(order[step * size : (step + 1) * size], key=lambda i: (lengths[i], i))
        cuts = [round(k * size / n_micro) for k in range(n_micro + 1)]
        steps.append([MicroBatch(batch[a:b], step) for a, b in itertools.pairwise(cuts)])
    return steps


class Steps(Dataset[int]):
    """The numbers of the steps that are still to do."""

    def __init__(self, start: int, stop: int) -> None:
        """Count from ``start`` up to, not including, ``stop``."""
        self.numbers = range(start, stop)

    def __len__(self) -> int:
        """Return how many steps are left."""
        return len(self.numbers)

    def __getitem__(self, index: int) -> int:
        """Return a step's number."""
        if index >= len(self.numbers):
            raise IndexError(index)
        return self.numbers[index]
