"""Adapters beside a base of lower precision."""

import torch
from peft.tuners.lora import LoraLayer
from tiny import randomise, tiny_config

from cai.config import Dtype
from cai.lm.load import load_model
from cai.lm.packing import Tree, hidden_states, pack


def gradients(model, casts):
    layers = [m for m in model.network.modules() if isinstance(m, LoraLayer)]
    assert layers
    for layer in layers:
        layer.cast_input_dtype_enabled = casts
    packed = pack([Tree([5, 6, 7, 8], [[9, 10, 11], [12]]), Tree([13], [[14, 15]])])
    with model.use("one"):
        for parameter in model.adapter_parameters("one"):
            parameter.requires_grad_(True)
            parameter.grad = None
        hidden_states(model.network, packed).float().square().mean().backward()
    return torch.cat([p.grad.flatten() for p in model.adapter_parameters("one")])


def adapted(hardware, dtype):
    model = load_model(tiny_config(dtype=dtype), hardware)
    model.add_adapter("one", 0)
    randomise(model, "one")
    return model


def test_inputs_go_to_adapters_as_they_are_and_nothing_changes(hardware):
    model = adapted(hardware, Dtype.bf16)
    layers = [m for m in model.network.modules() if isinstance(m, LoraLayer)]
    assert not any(layer.cast_input_dtype_enabled for layer in layers), "set when it was added"
    found, with_casts = gradients(model, casts=False), gradients(model, casts=True)
    assert found.dtype is torch.float32
    assert found.abs().max() > 0
    assert torch.equal(found, with_casts)


def test_beside_a_float32_base_peft_decides(hardware):
    model = adapted(hardware, Dtype.fp32)
    layers = [m for m in model.network.modules() if isinstance(m, LoraLayer)]
    assert all(layer.cast_input_dtype_enabled for layer in layers)
