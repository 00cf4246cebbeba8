"""A tiny model's config, and weights that make an adapter matter."""

import torch

from cai import parallel
from cai.config import (
    Accelerator,
    AdapterConfig,
    Dialect,
    Dtype,
    HardwareConfig,
    HelpfulSource,
    Method,
    MethodConfig,
    ModelConfig,
    ModelSource,
    OptimizerConfig,
    OptimizerKind,
    Precision,
    Quantization,
    Schedule,
    Strategy,
    SupervisedConfig,
    TrainerConfig,
)
from cai.training.trainer import Fit, fit


def tiny_config(**changes):
    values = {
        "name": "tiny",
        "source": ModelSource.tiny,
        "path": "",
        "revision": None,
        "dtype": Dtype.fp32,
        "quantization": Quantization.none,
        "dialect": Dialect.chat,
        "temperature": 1.0,
        "context": 2048,
        "template_options": {},
        "lora": AdapterConfig(rank=4, alpha=8, targets=["all-linear"]),
        "method": MethodConfig(
            helpful_tuning=True,
            helpful_prepared=False,
            answers=HelpfulSource.human,
            labels=Method.choice,
            compares=True,
        ),
    }
    return ModelConfig(**{**values, **changes})


class Supervised(SupervisedConfig):
    node = "test"


def tiny_optimizer(**changes):
    values = {
        "kind": OptimizerKind.adamw,
        "lr": 1e-2,
        "schedule": Schedule.cosine,
        "warmup": 0.1,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
    }
    return OptimizerConfig(**{**values, **changes})


def tiny_supervised(**changes):
    values = {"optimizer": tiny_optimizer(), "batch_size": 4, "epochs": 2}
    return Supervised(**{**values, **changes})


def randomise(model, name, seed=0, std=0.05):
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.adapter_parameters(name):
        parameter.data = torch.randn(parameter.shape, generator=generator) * std


def tiny_hardware(**changes):
    values = {
        "accelerator": Accelerator.cpu,
        "devices": 1,
        "num_nodes": 1,
        "strategy": Strategy.ddp,
        "precision": Precision.fp32,
        "activation_checkpointing": False,
        "compile": False,
        "threads": 1,
        "micro_tokens": 2048,
        "sample_rows": 64,
    }
    return HardwareConfig(**{**values, **changes})


def tiny_trainer(**changes):
    values = {
        "max_time": None,
        "profiler": None,
        "detect_anomaly": False,
        "deterministic": False,
        "callbacks": {},
    }
    return TrainerConfig(**{**values, **changes})


def train(module, folder, every=10, record=lambda values, step: None, callbacks=(), **trainer):
    """Fit a module on the processor, with the processes that there are."""
    folder.mkdir(exist_ok=True, parents=True)
    hardware = tiny_hardware(devices=parallel.world_size())
    fit(module, Fit("test", folder, record, every, tuple(callbacks)), hardware,
        tiny_trainer(**trainer))  # fmt: skip
