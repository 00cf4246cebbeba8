"""Going on where a killed run stopped, to the bit, from the Trainer's own checkpoint."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint

from cai import interrupt, parallel
from cai.errors import UserError
from cai.training.base import TrainingModule

CHECKPOINT = "last.ckpt"
STATE = "exact_resume"
FORMAT = 1
"""Raise it when an older checkpoint can't be gone on from."""


class ExactResume(Checkpoint):
    """Writes ``last.ckpt`` every few steps, with the state of everything random.

    Lightning keeps the weights, optimizers, schedules, loops and the loader's position.
    """

    def __init__(self, folder: Path, every: int) -> None:
        """Write to ``folder`` after every ``every`` steps; those of PPO are iterations."""
        self.path, self.every = folder / CHECKPOINT, every
        self._random: dict[str, Any] | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the random states back as late as possible."""
        if self._random is not None:
            restore_random(self._random)
            self._random = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *rest: Any
    ) -> None:
        """Write the checkpoint after a whole step; the last one needs none."""
        interrupt.check()
        assert isinstance(pl_module, TrainingModule)
        done = len(pl_module.history)
        due = done % self.every == 0 or trainer.should_stop
        if due and done < pl_module.n_steps and at_end_of_step(pl_module, rest[-1]):
            self.save(trainer)

    def save(self, trainer: L.Trainer) -> None:
        """Write the file beside the old one, then put it in its place."""
        scratch = self.path.with_name(self.path.name + ".tmp")
        trainer.save_checkpoint(scratch)
        if trainer.is_global_zero or parallel.world_size() == 1:
            scratch.replace(self.path)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what Lightning leaves out."""
        assert isinstance(pl_module, TrainingModule)
        checkpoint[STATE] = {
            "format": FORMAT,
            "steps": len(pl_module.history),
            "per_step": pl_module.data.per_step,
            "random": parallel.all_gather(random_state()),
        }

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Count the micro-batches of this run, which may be cut otherwise than the last one's."""
        assert isinstance(pl_module, TrainingModule)
        state = checkpoint[STATE]
        if len(state["random"]) == parallel.world_size():
            self._random = state["random"][parallel.rank()]
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        ready = state["steps"] * pl_module.data.per_step
        for counts in (progress["total"], progress["current"]):
            counts.update(ready=ready, started=ready, processed=ready, completed=ready - 1)


def at_end_of_step(module: TrainingModule, batch_idx: int) -> bool:
    """Tell whether a micro-batch was the last one of an optimizer step."""
    return (batch_idx + 1) % module.data.per_step == 0


def steps_done(path: Path) -> int:
    """Read from a checkpoint how many steps were done.

    Raises:
        UserError: If it was written by another version or is damaged.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)[STATE]
        if state["format"] == FORMAT:
            return int(state["steps"])
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise UserError(_not_ours(path)) from error
    raise UserError(_not_ours(path))


def _not_ours(path: Path) -> str:
    return (
        f"{path} was written by another version or is damaged: delete it, and the training begins "
        "anew"
    )


def random_state() -> dict[str, Any]:
    """Return the states of all generators that a library may draw from, as plain values."""
    name, keys, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random(state: dict[str, Any]) -> None:
    """Take over what ``random_state`` returned."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"].cpu())
    if len(state["cuda"]) == (torch.cuda.device_count() if torch.cuda.is_available() else 0):
        torch.cuda.set_rng_state_all([part.cpu() for part in state["cuda"]])
