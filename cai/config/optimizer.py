"""AdamW's node of the config, the same in every supervised stage."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from cai.config.choices import OptimizerKind, Schedule
from cai.config.rules import at_least, at_least_all, within
from cai.errors import UserError


@dataclass
class OptimizerConfig:
    """AdamW as every supervised stage uses it."""

    kind: OptimizerKind = MISSING
    lr: float = MISSING
    schedule: Schedule = MISSING
    warmup: float = MISSING
    weight_decay: float = MISSING
    max_grad_norm: float = MISSING
    batch_size: int = MISSING
    epochs: float = MISSING

    def __post_init__(self) -> None:
        """Check ranges."""
        within("lr", self.lr, 0.0, 1.0)
        within("warmup", self.warmup, 0.0, 1.0, "it is a share of all steps")
        at_least_all("optimizer", 0, weight_decay=self.weight_decay, epochs=self.epochs)
        at_least("batch_size", self.batch_size, 1)
        if isinstance(self.max_grad_norm, float) and self.max_grad_norm <= 0:
            raise UserError(
                f"max_grad_norm={self.max_grad_norm} must be above 0: use .inf for no clipping"
            )
