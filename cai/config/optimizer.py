"""AdamW's node of the config, and what every supervised training has beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from omegaconf import MISSING

from cai.config.choices import OptimizerKind, Schedule
from cai.config.rules import at_least, within
from cai.errors import UserError


@dataclass
class OptimizerConfig:
    """AdamW and the course of its learning rate; the values are those of conf/optimizer."""

    kind: OptimizerKind = MISSING
    lr: float = MISSING
    schedule: Schedule = MISSING
    warmup: float = MISSING
    weight_decay: float = MISSING
    max_grad_norm: float = MISSING

    def check(self, node: str) -> None:
        """Check ranges, which the node that has the optimizer does, for it knows its own name."""
        within(f"{node}.optimizer.lr", self.lr, 0.0, 1.0)
        within(f"{node}.optimizer.warmup", self.warmup, 0.0, 1.0, "it is a share of all updates")
        at_least(f"{node}.optimizer.weight_decay", self.weight_decay, 0)
        if isinstance(self.max_grad_norm, float) and self.max_grad_norm <= 0:
            raise UserError(
                f"{node}.optimizer.max_grad_norm={self.max_grad_norm} must be above 0: use .inf "
                "for no clipping"
            )


@dataclass
class SupervisedConfig:
    """A training on records: the optimizer, and how often it reads how many at a time."""

    node: ClassVar[str]

    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    batch_size: int = MISSING
    epochs: float = MISSING

    def __post_init__(self) -> None:
        """Check ranges."""
        self.optimizer.check(self.node)
        at_least(f"{self.node}.batch_size", self.batch_size, 1)
        at_least(f"{self.node}.epochs", self.epochs, 0)
