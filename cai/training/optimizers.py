"""AdamW in full precision or in eight bits, and the course of its learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, cast

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from cai.config import OptimizerConfig, OptimizerKind, Schedule

BETAS = (0.9, 0.95)


def make_optimizer(
    parameters: Iterable[nn.Parameter],
    settings: OptimizerConfig,
    n_steps: int,
    name: str = "lr",
    eps: float = 1e-8,
) -> dict[str, Any]:
    """Make AdamW and the course of its rate, as Lightning takes them.

    Args:
        parameters: What it changes.
        settings: Of the optimizer.
        n_steps: Updates in all.
        name: Of the metric that is the rate.
        eps: Added to the root of the second moment.
    """
    optimizer = adamw(
        settings.kind,
        parameters,
        lr=settings.lr,
        betas=BETAS,
        eps=eps,
        weight_decay=settings.weight_decay,
    )
    factor = rate(settings.schedule, settings.warmup, n_steps)
    course = {"scheduler": LambdaLR(optimizer, factor), "interval": "step", "name": name}
    return {"optimizer": optimizer, "lr_scheduler": course}


def adamw(kind: OptimizerKind, parameters: Iterable[nn.Parameter], **options: Any) -> Optimizer:
    """Make AdamW with its two moments in float32, or in blocks of eight bits.

    Dettmers et al. (2022), "8-bit optimizers via block-wise quantization". Tensors of less than
    4096 numbers keep float32. A paged state moves to the processor's memory when a GPU's is full.
    """
    if kind is OptimizerKind.adamw:
        return AdamW(parameters, **options)
    import bitsandbytes  # late, for it speaks when it is imported

    name = {
        OptimizerKind.adamw_8bit: "AdamW8bit",
        OptimizerKind.paged_adamw_8bit: "PagedAdamW8bit",
    }[kind]
    return cast(Optimizer, getattr(bitsandbytes.optim, name)(parameters, **options))


def rate(schedule: Schedule, warmup: float, n_steps: int) -> Callable[[int], float]:
    """Return the factor of the learning rate at each update: a linear rise, then the schedule."""
    rise = max(1, round(warmup * n_steps))

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        if schedule is Schedule.constant:
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, n_steps - rise)))

    return factor
