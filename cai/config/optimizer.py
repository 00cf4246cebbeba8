"""AdamW's node of the config, and what every supervised training has beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from omegaconf import MISSING

from cai.config.bounds import count, number
from cai.config.choices import OptimizerKind, Schedule


@dataclass
class OptimizerConfig:
    """AdamW and the course of its learning rate; the values are those of conf/optimizer."""

    kind: OptimizerKind = MISSING
    lr: float = number(0, 1)
    schedule: Schedule = MISSING
    warmup: float = number(0, 1, why="it is a share of all updates")
    weight_decay: float = number(0, 100)
    max_grad_norm: float = number(0, math.inf, above=True, why=".inf is no clipping")


@dataclass
class SupervisedConfig:
    """A training on records: the optimizer, and how often it reads how many at a time."""

    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    batch_size: int = count()
    epochs: float = number(0, 1000)
