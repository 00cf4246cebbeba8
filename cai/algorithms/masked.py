"""Statistics over the entries that count; whatever stands in the others changes nothing."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from torch import Tensor

_VARIANCE_FLOOR = 1e-8


class Moments(NamedTuple):
    """Count, mean and sum of squared deviations from that mean, each of shape []."""

    n: Tensor
    mean: Tensor
    squares: Tensor

    @property
    def variance(self) -> Tensor:
        """Population variance (divided by the count); 0 where nothing was counted."""
        return self.squares / self.n.clamp(min=1)


def masked_sum(x: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Sum ``x`` over the entries where ``mask``, of the same shape, is True."""
    return torch.where(mask, x, 0).sum(dim)


def masked_mean(x: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Average ``x`` over the entries where ``mask`` is True; 0 where there are none."""
    return masked_sum(x, mask, dim) / mask.sum(dim).clamp(min=1)


def masked_var(x: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Population variance over the entries where ``mask`` is True; 0 where there are none."""
    # Junk goes before the square: a gradient of 0 times an infinite slope would be nan.
    x = torch.where(mask, x, 0)
    mean = masked_mean(x, mask, dim)
    return masked_mean((x - (mean if dim is None else mean.unsqueeze(dim))).square(), mask, dim)


def moments(x: Tensor, mask: Tensor) -> Moments:
    """Summarise the entries where ``mask`` is True, in float32 or better."""
    x = x.detach().to(torch.promote_types(x.dtype, torch.float32))
    mean = masked_mean(x, mask)
    return Moments(mask.sum().to(x.dtype), mean, masked_sum((x - mean).square(), mask))


def whiten(x: Tensor, mask: Tensor) -> Tensor:
    """Shift and scale ``x`` to mean 0 and variance 1 over the entries that count.

    Args:
        x: Numbers of any shape.
        mask: Same shape; True = counts.

    Returns:
        The whitened numbers, 0 where ``mask`` is False.
    """
    whole = moments(x, mask)
    scaled = (x - whole.mean) * torch.rsqrt(whole.variance + _VARIANCE_FLOOR)
    return torch.where(mask, scaled, 0).to(x.dtype)


@dataclass
class RunningMoments:
    """Moments of everything seen so far (Chan et al. 1979), for dividing scores by their spread."""

    count: float = 0.0
    mean: float = 0.0
    squares: float = 0.0

    @property
    def std(self) -> float:
        """Population standard deviation; 1 until two different numbers were seen."""
        return math.sqrt(self.squares / self.count) if self.squares > 0 else 1.0

    def update(self, batch: Moments) -> None:
        """Take in the moments of a batch."""
        added, mean = batch.n.item(), batch.mean.item()
        if added == 0:
            return
        total, shift = self.count + added, mean - self.mean
        self.squares += batch.squares.item() + shift**2 * self.count * added / total
        self.mean += shift * added / total
        self.count = total

    def state_dict(self) -> dict[str, float]:
        """Return what a resumed run needs."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Take over what ``state_dict`` returned."""
        self.count, self.mean, self.squares = state["count"], state["mean"], state["squares"]
