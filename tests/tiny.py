"""A tiny model's config, and weights that make an adapter matter."""

import torch

from cai.config import AdapterConfig, Dialect, Dtype, ModelConfig, ModelSource, Quantization


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
        "helpful_tuning": True,
    }
    return ModelConfig(**{**values, **changes})


def randomise(model, name, seed=0, std=0.05):
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.adapter_parameters(name):
        parameter.data = torch.randn(parameter.shape, generator=generator) * std
