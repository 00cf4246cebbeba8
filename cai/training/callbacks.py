"""What looks on while something is trained: the bar, the speed, the clock."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Timer, TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from cai.training.base import TrainingModule
from cai.training.data import Batch
from cai.training.records import Record
from cai.training.resume import at_end_of_step


class Bar(TQDMProgressBar):
    """Shows the steps under the name of what is trained, on standard error like all progress."""

    def __init__(self, name: str) -> None:
        """Use ``name``."""
        super().__init__(refresh_rate=1)
        self._name = name

    def init_train_tqdm(self) -> Tqdm:
        """Make the bar."""
        return Tqdm(desc=self._name, dynamic_ncols=True, smoothing=0, disable=self.is_disabled)

    def on_train_epoch_start(self, trainer: L.Trainer, *rest: Any) -> None:
        """Keep the name, where Lightning would count epochs."""
        super().on_train_epoch_start(trainer, *rest)
        self.train_progress_bar.set_description(self._name)


class TrackerLogger(Logger):
    """Hands Lightning's metrics to the project's records: metrics.jsonl and Weights & Biases."""

    def __init__(self, record: Record) -> None:
        """Use ``record``."""
        super().__init__()
        self._record = record

    @property
    def name(self) -> str:
        """Return the logger's name."""
        return "tracker"

    @property
    def version(self) -> str:
        """Return no version: the records know their own run."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Record the numbers of a step."""
        self._record({k: v for k, v in metrics.items() if k != "epoch"}, step or 0)

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Leave the settings to the tracker, which records those of the whole stage."""


class Speed(L.Callback):
    """Logs learning rates, steps and, where rows are trained on, tokens per second."""

    def __init__(self) -> None:
        """Begin with the first batch."""
        self._began = time.monotonic()
        self._tokens = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._began, self._tokens = time.monotonic(), 0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *rest: Any
    ) -> None:
        """Log after each whole step."""
        assert isinstance(pl_module, TrainingModule)
        _, batch, batch_idx = rest
        if isinstance(batch, Batch):
            self._tokens += batch.packed.ids.numel()
        if not at_end_of_step(pl_module, batch_idx):
            return
        now = time.monotonic()
        seconds = max(now - self._began, 1e-9)
        values = {
            config.name or "lr": float(config.scheduler.get_last_lr()[0])
            for config in trainer.lr_scheduler_configs
        }
        values["seconds_per_step"] = seconds
        if self._tokens:
            values["tokens_per_second"] = self._tokens / seconds
        for logger in trainer.loggers:
            logger.log_metrics(values, len(pl_module.history) - 1)
        self._began, self._tokens = now, 0


class Limit(Timer):
    """Ends a training after a while, between two steps; a run that goes on has all of it again.

    Attributes:
        reached: Whether it has.
    """

    reached = False

    def on_fit_start(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        """Let at least one step be done, so that every run gets further."""

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        """Look at the clock after each whole step."""
        module = trainer.lightning_module
        assert isinstance(module, TrainingModule)
        if at_end_of_step(module, args[-1]):
            before = trainer.should_stop
            super().on_train_batch_end(trainer, *args, **kwargs)
            self.reached = trainer.should_stop and not before

    def state_dict(self) -> dict[str, Any]:
        """Keep nothing."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Begin anew."""
