"""Going on where a killed run stopped, to the bit, from the Trainer's own checkpoint."""

from __future__ import annotations

import io
import logging
import pickle
import random
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from cai import interrupt, parallel, parts
from cai.files import SCRATCH, replacing, set_aside
from cai.training.base import TrainingModule

log = logging.getLogger(__name__)

CHECKPOINT = "last.ckpt"
STATE = "exact_resume"
FORMAT = 2
"""Raise it when an older checkpoint can't be gone on from."""
UNREADABLE = (
    RuntimeError, KeyError, ValueError, TypeError, EOFError, AttributeError, IndexError,
    pickle.UnpicklingError,
)  # fmt: skip
"""What PyTorch raises when a file is no checkpoint."""


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
        """Let Lightning write the file, which takes the old one's place when it is whole."""
        trainer.save_checkpoint(self.path)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what Lightning leaves out."""
        assert isinstance(pl_module, TrainingModule)
        checkpoint[STATE] = {
            "format": FORMAT,
            "steps": len(pl_module.history),
            "n_steps": pl_module.n_steps,
            "beside": files_beside(self.path),
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


class DurableCheckpoints(TorchCheckpointIO):
    """Writes checkpoints as all other files are written."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write a checkpoint; a reader sees the old one or the new one."""
        buffer = io.BytesIO()  # PyTorch's own writer gives errors of the disk no number
        torch.save(checkpoint, buffer)
        with replacing(Path(path)) as scratch:
            scratch.write_bytes(buffer.getbuffer())


def files_beside(path: Path) -> list[str]:
    """List the files below a checkpoint's folder that were made before it.

    What a callback has written there on its own account does not count.
    """
    workspace = parts.workspace_of(path)
    known = parts.read(workspace) if workspace else {}
    files = [p for p in path.parent.rglob("*") if p.is_file() and not any(map(p.match, SCRATCH))]
    if workspace:
        files = [p for p in files if p.relative_to(workspace).as_posix() in known]
    names = {p.relative_to(path.parent).as_posix() for p in files}
    return sorted(names - {path.name})


def usable(path: Path, module: TrainingModule) -> int | None:
    """Return the step that a checkpoint was written after; None if there is none to go on from.

    One that is damaged, that another version wrote or that can't be of this training is set aside.
    """
    if not path.exists():
        return None
    fault = _fault(path, module)
    if isinstance(fault, int):
        return fault
    moved = set_aside(path)
    log.warning("%s %s: set aside as %s, and the training begins anew", path, fault, moved)
    return None


def _fault(path: Path, module: TrainingModule) -> str | int:
    """Say what is wrong with a checkpoint, or after which step it was written."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        state, history = checkpoint[STATE], checkpoint["history"]
        if state["format"] != FORMAT:
            return "was written by another version"
        steps, of, beside = state["steps"], state["n_steps"], state["beside"]
        gone = [name for name in beside if not (path.parent / name).is_file()]
        rows = len(history)
    except (*UNREADABLE, OSError) as error:
        return f"is damaged ({type(error).__name__})"
    if gone:
        return f"was written after {gone[0]}, which is gone"
    if not (type(steps) is int and 0 < steps == rows < of == module.n_steps):
        return f"is of step {steps} of {of} with the numbers of {rows}, which can't be"
    return steps


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
