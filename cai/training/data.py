"""The order of batches, decided before training starts, so that step k is the same after a kill."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset

from cai import parallel
from cai.config import SupervisedConfig
from cai.lm.packing import Packed, Tree, pack, shared_in_training

T = TypeVar("T")


@dataclass(frozen=True)
class Order:
    """What decides which records come when.

    Attributes:
        micro_tokens: Padded tokens of one forward and backward pass.
        seed: Of the permutations.
    """

    micro_tokens: int
    seed: int


class MicroBatch(NamedTuple):
    """What one forward and backward pass reads.

    Attributes:
        records: Indices of training records.
        batch: The optimizer step that it belongs to.
    """

    records: list[int]
    batch: int


@dataclass(frozen=True)
class Batch:
    """A micro-batch as a module is handed it.

    Attributes:
        records: Indices of training records.
        packed: Their tokens.
        units: What the loss is a mean over: tokens, or records.
        total: The units of the whole optimizer step, over all its micro-batches.
        counts: False for one that only keeps a process in step with the others.
    """

    records: list[int]
    packed: Packed
    units: int
    total: int
    counts: bool = True

    @property
    def share(self) -> float:
        """Return this micro-batch's part of its step."""
        return self.units / self.total

    def to(self, device: torch.device, **options: Any) -> Batch:
        """Move the tokens; Lightning calls this."""
        return replace(self, packed=self.packed.to(device))


def schedule_batches(
    lengths: Sequence[int], settings: SupervisedConfig, micro_tokens: int, seed: int
) -> list[list[MicroBatch]]:
    """Plan every optimizer step of a stage.

    Each epoch is a new permutation; the last batch is filled up with records of the next one, so
    that every batch has the same size. All steps have the same number of micro-batches, each of
    about ``micro_tokens`` padded tokens.

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
    n_processes = parallel.world_size()
    per_process = math.ceil(size * max(lengths) / micro_tokens / n_processes)
    n_micro = min(size, per_process * n_processes)
    steps = []
    for step in range(n_batches):
        batch = sorted(order[step * size : (step + 1) * size], key=lambda i: (lengths[i], i))
        cuts = [round(k * size / n_micro) for k in range(n_micro + 1)]
        steps.append([MicroBatch(batch[a:b], step) for a, b in itertools.pairwise(cuts)])
    return steps


class Loader(DataLoader[T]):
    """Hands over what a list holds, one by one, and goes on where it was."""

    def __init__(self, items: Dataset[T], per_step: int = 1) -> None:
        """Read ``items``, of which ``per_step`` make one optimizer step."""
        super().__init__(items, batch_size=None, num_workers=0)
        self._per_step, self._start, self._given = per_step, 0, 0

    def __iter__(self) -> Iterator[T]:  # type: ignore[override]
        """Yield the items that are left."""
        items, self._given, self._start = self.dataset, self._start, 0
        for number in range(self._given, len(items)):  # type: ignore[arg-type]
            self._given += 1
            yield items[number]

    def state_dict(self) -> dict[str, int]:
        """Return how many optimizer steps have been handed over."""
        return {"steps": self._given // self._per_step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin where the loader of this state was."""
        self._start = state["steps"] * self._per_step


class Items(Dataset[T]):
    """A list as a data set."""

    def __init__(self, items: Sequence[T]) -> None:
        """Hold ``items``."""
        self.items = items

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.items)

    def __getitem__(self, index: int) -> T:
        """Return one of them."""
        return self.items[index]


class StepData(L.LightningDataModule):
    """What a training reads, cut into optimizer steps.

    Attributes:
        n_steps: Optimizer steps in all.
        per_step: Micro-batches of each, in this process.
    """

    n_steps: int
    per_step: int = 1


class TreeData(StepData):
    """Rows of tokens in micro-batches; each process gets its share of every step."""

    def __init__(
        self, trees: Sequence[Tree], units: Sequence[int], settings: SupervisedConfig, order: Order
    ) -> None:
        """Plan the steps.

        Args:
            trees: The records.
            units: How much each counts in the mean that is the loss.
            settings: Batch size and epochs.
            order: Size of a micro-batch, and the seed.
        """
        super().__init__()
        self._trees, self._units = trees, units
        self._shared = shared_in_training(trees)
        lengths = [tree.length for tree in trees]
        self._steps = schedule_batches(lengths, settings, order.micro_tokens, order.seed)
        self.n_steps = len(self._steps)
        n_micro = len(self._steps[0]) if self._steps else 1
        self.per_step = math.ceil(n_micro / parallel.world_size())

    def train_dataloader(self) -> Loader[Batch]:
        """Return the loader of this process's micro-batches."""
        return Loader(_OwnBatches(self._steps, self.per_step, self._make), self.per_step)

    def _make(self, step: Sequence[MicroBatch], place: int) -> Batch:
        own = parallel.share(step)
        counts = place < len(own)
        records = own[place].records if counts else step[0].records[:1]
        return Batch(
            records=records,
            packed=pack([self._trees[i] for i in records], shared=self._shared),
            units=sum(self._units[i] for i in records),
            total=sum(self._units[i] for micro in step for i in micro.records),
            counts=counts,
        )


class _OwnBatches(Dataset[Batch]):
    """Packs a micro-batch when it is asked for."""

    def __init__(self, steps: list[list[MicroBatch]], per_step: int, make: Any) -> None:
        self._steps, self._per_step, self._make = steps, per_step, make

    def __len__(self) -> int:
        return len(self._steps) * self._per_step

    def __getitem__(self, index: int) -> Batch:
        step, place = divmod(index, self._per_step)
        made: Batch = self._make(self._steps[step], place)
        return made


class IterationData(StepData):
    """The numbers of PPO's iterations: what an iteration learns from, it collects itself."""

    def __init__(self, n_steps: int) -> None:
        """Count to ``n_steps``."""
        super().__init__()
        self.n_steps = n_steps

    def train_dataloader(self) -> Loader[int]:
        """Return the loader of the numbers."""
        return Loader(Items(range(self.n_steps)))
