"""A tiny model's config, and weights that make an adapter matter."""

import torch

from cai.config import Dialect, Dtype, ModelConfig, ModelSource, Quantization


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
        "lora_rank": 4,
        "lora_alpha": 8,
        "helpful_tuning": True,
    }
    return ModelConfig(**{**values, **changes})


def randomise(model, name, seed=0, std=0.05):
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.adapter_parameters(name):
        parameter.data = torch.randn(parameter.shape, generator=generator) * std
