"""How fast this machine reads and samples: a two-second measurement."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from cai.lm.generate import Sampling, generate
from cai.lm.load import LanguageModel
from cai.lm.packing import Tree, hidden_states, pack


class Speed(NamedTuple):
    """Tokens per second."""

    read: float
    sampled: float


def measure(model: LanguageModel) -> Speed:
    """Read and sample for about a second each; a first pass that only warms up does not count."""
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
    """Return the median time of as many calls as fit in a second, at least one after the first."""
    work()
    times: list[float] = []
    while not times or sum(times) < 1:
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)
