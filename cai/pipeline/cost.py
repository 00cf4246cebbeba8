"""What a plan will take on this machine."""

from __future__ import annotations

from dataclasses import dataclass

from cai.pipeline.stage import Work

TRAINING = 3.5
"""Time of a forward and backward pass through an adapter, in forward passes."""


@dataclass(frozen=True)
class Cost:
    """Work in minutes of this machine."""

    prompts: int
    tokens: int
    minutes: float


def cost_of(work: Work, read: float, sampled: float) -> Cost:
    """Turn work into minutes.

    Args:
        work: Of a stage.
        read: Tokens that this machine reads in a second.
        sampled: Tokens that it samples in a second.
    """
    seconds = (work.read + TRAINING * work.trained) / read + work.sampled / sampled
    return Cost(work.prompts, work.read + work.sampled + work.trained, seconds / 60)
