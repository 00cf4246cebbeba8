"""Lightning's Trainer from the config, and a fit that goes on where a killed run stopped."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.fabric.utilities.warnings import disable_possible_user_warnings
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, Strategy

from cai import launchers, parallel
from cai.config import HardwareConfig, TrainerConfig
from cai.errors import UserError
from cai.files import remove
from cai.training.base import TrainingModule
from cai.training.callbacks import Bar, Limit, Speed, TrackerLogger
from cai.training.records import Record
from cai.training.resume import CHECKPOINT, DurableCheckpoints, ExactResume, usable

log = logging.getLogger(__name__)

disable_possible_user_warnings()  # advice on workers, which small rows in memory do not need


@dataclass(frozen=True)
class Fit:
    """One training of a stage.

    Attributes:
        name: For the progress bar.
        folder: Where the checkpoint lives while training goes on; it is removed at the end.
        record: Takes the numbers of each step.
        every: Steps between checkpoints.
        callbacks: Of this training, beside those of every one.
    """

    name: str
    folder: Path
    record: Record
    every: int = 10
    callbacks: tuple[L.Callback, ...] = ()


def fit(module: TrainingModule, job: Fit, hardware: HardwareConfig, config: TrainerConfig) -> None:
    """Train to the end; the folder's checkpoint, if any, says where to begin.

    Args:
        module: With what it learns from.
        job: Its name and place.
        hardware: Where.
        config: Arguments and callbacks of the user.

    Raises:
        UserError: If ``trainer.max_time`` ended it, or an argument is wrong.
    """
    path = job.folder / CHECKPOINT
    steps = usable(path, module)
    saved = path if steps else None
    if saved:
        log.info("%s: going on at step %d of %d", job.name, steps, module.n_steps)
    if module.n_steps == 0:
        return
    device = next(module.parameters()).device
    resume = ExactResume(job.folder, job.every)
    limit = Limit(config.max_time, verbose=False)
    trainer = L.Trainer(
        **_placement(hardware, device, module),
        max_epochs=1,
        accumulate_grad_batches=module.data.per_step if module.automatic_optimization else 1,
        logger=TrackerLogger(job.record),
        log_every_n_steps=1,
        enable_model_summary=False,
        enable_progress_bar=parallel.is_global_zero(),
        use_distributed_sampler=False,
        profiler=config.profiler and config.profiler.value,
        detect_anomaly=config.detect_anomaly,
        deterministic=config.deterministic,
        callbacks=[
            *([Bar(job.name)] if parallel.is_global_zero() else []),
            *job.callbacks,
            *user_callbacks(config),
            Speed(),
            *([limit] if config.max_time else []),
            resume,
        ],
        plugins=[DurableCheckpoints(), launchers.environment()],
        default_root_dir=job.folder,
    )
    try:
        trainer.fit(module, datamodule=module.data, ckpt_path=saved, weights_only=True)
    except SystemExit:  # what Lightning makes of Ctrl-C
        raise KeyboardInterrupt from None
    finally:
        module.to(device)  # Lightning leaves a module on the processor
    if limit.reached and len(module.history) < module.n_steps:
        raise UserError(
            f"trainer.max_time={config.max_time} ended {job.name} after step "
            f"{len(module.history)} of {module.n_steps}: the same command goes on from there"
        )
    remove(path)


def user_callbacks(config: TrainerConfig) -> list[L.Callback]:
    """Make the callbacks that the config names by ``_target_``.

    Raises:
        UserError: If one can't be made or is no callback.
    """
    made = []
    for name, node in config.callbacks.items():
        key = f"trainer.callbacks.{name}"
        if not isinstance(node, dict) or "_target_" not in node:
            raise UserError(f"{key} needs a class: set {key}._target_=module.Class")
        try:
            callback = instantiate(node)
        except (InstantiationException, ValueError, TypeError) as error:
            reason = str(error.__cause__ or error).splitlines()[0]
            raise UserError(f"{key}._target_={node['_target_']} can't be made: {reason}") from error
        if not isinstance(callback, L.Callback):
            raise UserError(
                f"{key}._target_={node['_target_']} is not a callback: derive its class from "
                "lightning.Callback"
            )
        made.append(callback)
    return made


def _placement(
    hardware: HardwareConfig, device: torch.device, module: TrainingModule
) -> dict[str, Any]:
    """Return the arguments that say on which devices and how: those of the processes there are."""
    accelerator = {"cpu": "cpu", "cuda": "gpu", "mps": "mps"}[device.type]
    placed: dict[str, Any] = {"accelerator": accelerator, "precision": hardware.precision.value}
    if parallel.world_size() == 1:
        strategy: Strategy = SingleDeviceStrategy(device)
        return {**placed, "devices": 1, "strategy": strategy}
    processes = launchers.processes(hardware.devices, hardware.num_nodes)
    return {
        **placed,
        "devices": processes.devices,
        "num_nodes": processes.num_nodes,
        "strategy": DDPStrategy(
            # PPO's two networks are never in the same backward pass.
            find_unused_parameters=not module.automatic_optimization,
            timeout=parallel.PATIENCE,
        ),
    }


def seed_everything(seed: int) -> None:
    """Seed what libraries may draw from behind our back; our own draws have their own seeds."""
    random.seed(seed)
    torch.manual_seed(seed)
