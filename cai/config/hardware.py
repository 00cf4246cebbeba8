"""How a run is executed, never what it computes: devices, memory, and the Trainer."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import MISSING

from cai.config.bounds import count
from cai.config.choices import Accelerator
from cai.errors import UserError


class Strategy(Enum):
    """What several processes hold of a model."""

    ddp = "ddp"
    shard = "shard"


class Precision(Enum):
    """Of the arithmetic of training, in Lightning's words; the weights have ``model.dtype``."""

    fp32 = "32-true"
    bf16_mixed = "bf16-mixed"


class Profiler(Enum):
    """Lightning's profilers."""

    simple = "simple"
    advanced = "advanced"


@dataclass
class HardwareConfig:
    """Where and how a run is executed; never changes what is computed beyond rounding."""

    accelerator: Accelerator = MISSING
    devices: int = count(1, 1024)
    num_nodes: int = count(1, 65_536)
    strategy: Strategy = MISSING
    precision: Precision = MISSING
    activation_checkpointing: bool = MISSING
    compile: bool = MISSING
    threads: int = count(0, 4096)
    micro_tokens: int = count()
    sample_rows: int = count()


@dataclass
class TrainerConfig:
    """Arguments of Lightning's Trainer in every training, and callbacks by ``_target_``."""

    max_time: str | None = MISSING
    profiler: Profiler | None = MISSING
    detect_anomaly: bool = MISSING
    deterministic: bool = MISSING
    callbacks: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the duration."""
        given = self.max_time
        if given not in {None, MISSING} and not re.fullmatch(r"\d+:\d\d:\d\d:\d\d", str(given)):
            raise UserError(
                f"trainer.max_time={given} is not a duration: write it as days:hours:minutes:"
                "seconds, such as 00:12:00:00"
            )
