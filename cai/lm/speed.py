"""How fast this machine reads and samples: a measurement of two seconds at most."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from cai.lm.generate import Sampling, generate
from cai.lm.load import LanguageModel
from cai.lm.packing import Tree, hidden_states, pack

CALLS = 9
"""Timed, at most."""


class Speed(NamedTuple):
    """Tokens per second."""

    read: float
    sampled: float


def measure(model: LanguageModel) -> Speed:
    """Read and sample for a second each, a small model for less; a first pass does not count."""
    network, ids, rows, new = model.network, list(range(3, 131)), 16, 6
    packed = pack([Tree(ids, [ids[:1]])] * 4).to(model.device)

    def read() -> None:
        with torch.inference_mode():
            hidden_states(network, packed)

    def sample() -> None:
        prompts = [ids[:32]] * rows
        generate(network, prompts, range(rows), Sampling(new), frozenset(), batch_size=rows)

    return Speed(packed.ids.numel() / _seconds(read), rows * new / _seconds(sample))


def _seconds(work: Callable[[], None]) -> float:
    """Return the median time of some calls: nine, or as many as fit in a second, one at least."""
    work()
    times: list[float] = []
    while not times or (len(times) < CALLS and sum(times) < 1):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)
