"""Take back what a step of manual optimisation has changed."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L
import torch
from torch import nn

Trained = Mapping[str, Sequence[nn.Parameter]]


def snapshot(trained: Trained, trainer: L.Trainer) -> dict[str, Any]:
    """Copy the trained weights, the state of their optimizers and schedules, and torch's seed."""
    state = {
        "weights": {name: [p.detach() for p in ps] for name, ps in trained.items()},
        "optimizers": [o.state_dict() for o in trainer.optimizers],
        "schedulers": [c.scheduler.state_dict() for c in trainer.lr_scheduler_configs],
        "random": torch.get_rng_state(),
    }
    return copy.deepcopy(state)


@torch.no_grad()
def take_back(state: dict[str, Any], trained: Trained, trainer: L.Trainer) -> None:
    """Put everything back as ``snapshot`` found it."""
    for name, parameters in trained.items():
        for parameter, saved in zip(parameters, state["weights"][name], strict=True):
            parameter.copy_(saved)
    for optimizer, saved in zip(trainer.optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    for config, saved in zip(trainer.lr_scheduler_configs, state["schedulers"], strict=True):
        config.scheduler.load_state_dict(saved)
    torch.set_rng_state(state["random"])
