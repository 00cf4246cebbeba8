"""The processor's attention equals the library's, forward and backward, with and without masks."""

import pytest
import torch
from tiny import tiny_config
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from cai.lm import attention
from cai.lm.backbone import causal_lm
from cai.lm.load import load_model
from cai.lm.packing import Tree, hidden_states, pack


class Layer(torch.nn.Module):
    """What the library reads of an attention layer."""

    is_causal = True
    num_key_value_groups = 3


def tensors(rows, queries, keys, dtype=torch.float32):
    generator = torch.Generator().manual_seed(queries + keys)
    shapes = [(rows, 6, queries, 8), (rows, 2, keys, 8), (rows, 2, keys, 8)]
    return [
        torch.randn(shape, generator=generator, dtype=dtype, requires_grad=True) for shape in shapes
    ]


def seen(rows, queries, keys):
    """A mask in which each row and query sees keys of its own, at least one."""
    generator = torch.Generator().manual_seed(1)
    mask = torch.rand(rows, 1, queries, keys, generator=generator) < 0.6
    mask[..., 0] = True
    return torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)


CASES = {
    "causal": (5, 5, None),
    "tree": (5, 5, "own"),
    "after a prefix": (3, 7, "own"),
    "the same for all rows": (3, 7, "shared"),
    "one token": (1, 7, "own"),
    "one token sees all": (1, 7, None),
    "too long to keep": (600, 600, None),
}


@pytest.mark.parametrize("case", CASES)
def test_it_equals_the_librarys_attention(case):
    queries, keys, kind = CASES[case]
    mask = None if kind is None else seen(2 if kind == "own" else 1, queries, keys)
    results = []
    for attend in (attention.cpu_attention, sdpa_attention_forward):
        inputs = tensors(2, queries, keys)
        output, weights = attend(Layer(), *inputs, mask, scaling=0.3)
        assert weights is None
        assert output.shape == (2, queries, 6, 8)
        (output * torch.arange(8)).sum().backward()
        results.append([output, *(x.grad for x in inputs)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_the_library_keeps_what_is_not_ours(monkeypatch):
    monkeypatch.setattr(attention, "_short_rows", lambda *args: pytest.fail("not to be used"))
    query, key, value = tensors(1, 4, 4)
    own_mask = torch.ones(1, 1, 4, 4, dtype=torch.bool).tril()
    attention.cpu_attention(Layer(), query, key, value, own_mask)
    attention.cpu_attention(Layer(), query, key, value, None, dropout=0.1)
    monkeypatch.setattr(attention, "WIDEST", 3)
    attention.cpu_attention(Layer(), query, key, value, None)


def test_a_model_uses_it(hardware, monkeypatch):
    model = load_model(tiny_config(), hardware)
    packed = pack([Tree([5, 6, 7], [[8, 9], [10]]), Tree([5], [[6], [7]])])
    calls = []
    original = attention._short_rows
    monkeypatch.setattr(attention, "_short_rows", lambda *args: calls.append(1) or original(*args))
    ours = hidden_states(model.network, packed)
    assert len(calls) == causal_lm(model.network).config.num_hidden_layers
    causal_lm(model.network).set_attn_implementation("sdpa")
    theirs = hidden_states(model.network, packed)
    for row, length in enumerate((6, 3)):
        torch.testing.assert_close(ours[row, :length], theirs[row, :length], atol=1e-5, rtol=1e-4)
