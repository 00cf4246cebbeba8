"""Fit a module, and go on where a killed run stopped, to the bit."""

from __future__ import annotations

import logging
import math
import random
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from cai import interrupt, parallel
from cai.config import HardwareConfig, OptimizerConfig, Schedule
from cai.results.common import Numbers
from cai.training.data import Steps

log = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"


Record = Callable[[Mapping[str, float], int], None]
"""Takes the numbers of one step, live; the module keeps them in ``history`` as well."""


class ResumableModule(L.LightningModule):
    """Base of the training modules: weights, optimizers, schedules and history as one state.

    Optimisation is manual throughout, because the micro-batches of a step hold different numbers
    of tokens and their losses must be weighted accordingly.
    """

    automatic_optimization = False
    n_steps: int

    def __init__(self, trained: dict[str, list[nn.Parameter]], record: Record) -> None:
        """Register the trained weights by name; frozen models stay out of the registry."""
        super().__init__()
        self.automatic_optimization = False
        self.history: list[Numbers] = []
        self._record = record
        self._trained = trained
        for name, parameters in trained.items():
            self.register_module(f"trained_{name}", nn.ParameterList(parameters))

    def report(self, values: Mapping[str, float], step: int) -> None:
        """Keep the numbers of a step and pass them on."""
        self.history.append({"step": step, **values})
        self._record(values, step)
        shown = {k: v for k, v in values.items() if k in {"loss", "score", "kl"}}
        self.log_dict(shown, prog_bar=True, batch_size=1)

    def update(self, index: int, max_grad_norm: float) -> float:
        """Clip the gradients of one optimizer, step it and its schedule; return their norm.

        Each process has made the gradients of its share; their sum is that of the whole batch.
        """
        optimizer = _as_list(self.optimizers())[index]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        parallel.add_up_gradients(parameters)
        norm = nn.utils.clip_grad_norm_(parameters, max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        _as_list(self.lr_schedulers())[index].step()
        return float(norm)

    def training_state(self) -> dict[str, Any]:
        """Return everything that training changes."""
        optimizers = _as_list(self.optimizers(use_pl_optimizer=False))
        schedulers = _as_list(self.lr_schedulers())
        return {
            "weights": {k: [p.detach().cpu() for p in ps] for k, ps in self._trained.items()},
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            "schedulers": [scheduler.state_dict() for scheduler in schedulers],
            "torch": torch.get_rng_state(),
            "history": self.history,
        }

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Take over what ``training_state`` returned."""
        with torch.no_grad():
            for name, parameters in self._trained.items():
                for parameter, saved in zip(parameters, state["weights"][name], strict=True):
                    parameter.copy_(saved)
        optimizers = _as_list(self.optimizers(use_pl_optimizer=False))
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        schedulers = _as_list(self.lr_schedulers())
        for scheduler, saved in zip(schedulers, state["schedulers"], strict=True):
            scheduler.load_state_dict(saved)
        torch.set_rng_state(state["torch"])
        self.history = state["history"]


class _Keeper(L.Callback):
    """Writes the checkpoint every few steps and puts it back before the first one."""

    def __init__(self, path: Path, every: int, saved: dict[str, Any] | None) -> None:
        self.path, self.every, self.saved = path, every, saved

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if self.saved is not None and isinstance(module, ResumableModule):
            module.load_training_state(self.saved["module"])
            self.saved = None

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        interrupt.check()
        done = int(batch) + 1
        if not isinstance(module, ResumableModule):
            return
        if done % self.every == 0 and done < module.n_steps:
            scratch = self.path.with_name(self.path.name + ".tmp")
            torch.save({"step": done, "module": module.training_state()}, scratch)
            Path(scratch).replace(self.path)


class _Bar(TQDMProgressBar):
    """Shows the steps under the name of what is trained, on standard error like all progress."""

    def __init__(self, name: str) -> None:
        super().__init__(refresh_rate=1)
        self._name = name

    def init_train_tqdm(self) -> Tqdm:
        return Tqdm(desc=self._name, dynamic_ncols=True, smoothing=0, disable=self.is_disabled)

    def on_train_epoch_start(self, trainer: L.Trainer, *rest: Any) -> None:
        super().on_train_epoch_start(trainer, *rest)
        self.train_progress_bar.set_description(self._name)


def fit(
    module: ResumableModule,
    hardware: HardwareConfig,
    folder: Path,
    name: str,
    every: int = 10,
) -> None:
    """Train to the end; the folder's checkpoint, if any, says where to begin.

    Args:
        module: Has ``n_steps``; its ``training_step`` is handed the number of the step.
        hardware: The device.
        folder: Where the checkpoint lives while training goes on; it is removed at the end.
        name: For the progress bar.
        every: Steps between checkpoints.
    """
    path = folder / CHECKPOINT
    saved = torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None
    start = saved["step"] if saved else 0
    if saved:
        log.info("%s: going on at step %d of %d", name, start, module.n_steps)
    device = next(module.parameters()).device
    if start < module.n_steps:
        trainer = L.Trainer(
            accelerator=hardware.accelerator.value,
            devices=[device.index] if device.type == "cuda" else 1,
            plugins=[LightningEnvironment()],  # processes are told apart by cai.parallel alone
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=parallel.leads(),
            callbacks=[_Keeper(path, every, saved), *([_Bar(name)] if parallel.leads() else [])],
            default_root_dir=folder,
        )
        loader = DataLoader(Steps(start, module.n_steps), batch_size=None)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*does not have many workers.*")
            try:
                trainer.fit(module, loader)
            except SystemExit:  # what Lightning makes of Ctrl-C
                raise KeyboardInterrupt from None
        module.to(device)  # Lightning leaves a module on the processor
    path.unlink(missing_ok=True)


def make_optimizer(
    parameters: list[nn.Parameter], settings: OptimizerConfig, n_steps: int
) -> tuple[Optimizer, LambdaLR]:
    """Make AdamW and the learning rate's course over ``n_steps`` updates."""
    optimizer = AdamW(
        parameters, lr=settings.lr, weight_decay=settings.weight_decay, betas=(0.9, 0.95)
    )
    return optimizer, LambdaLR(optimizer, rate(settings.schedule, settings.warmup, n_steps))


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


def seed_everything(seed: int) -> None:
    """Seed what libraries may draw from behind our back; our own draws have their own seeds."""
    random.seed(seed)
    torch.manual_seed(seed)


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
