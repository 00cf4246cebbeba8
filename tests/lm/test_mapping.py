"""What trees have in common is computed once, and nothing that is read changes by it."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from cai.lm import mapping, packing, score
from cai.lm.backbone import COMPILED, blocks, n_layers
from cai.lm.mapping import WIDEST, join, map_responses
from cai.lm.packing import (
    SHARED_TOKENS,
    Tree,
    hidden_states,
    pack,
    shared_beginning,
    shared_in_training,
)
from cai.lm.score import token_logprobs
from cai.lm.states import end_states

SYSTEM = list(range(20, 20 + SHARED_TOKENS))
TREES = [
    Tree([*SYSTEM, 5, 6], [[8, 9], [10]]),
    Tree([*SYSTEM, 14], [[15, 3]]),
    Tree([*SYSTEM, 5, 6], [[11, 12, 13]]),
    Tree([*SYSTEM, 5, 6, 7], [[16], [17, 18], [19]]),
    Tree([*SYSTEM, 14], [[15, 3]]),
]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("max_tokens", [1, 40, 1000])
def test_tokens_read_together_equal_those_read_alone(model, max_tokens):
    together = token_logprobs(model, TREES, max_tokens)
    assert [[len(part) for part in row] for row in together] == [
        [len(response) for response in tree.responses] for tree in TREES
    ]
    for tree, parts in zip(TREES, together, strict=True):
        for response, found in zip(tree.responses, parts, strict=True):
            [[alone]] = token_logprobs(model, [Tree(tree.prompt, [response])], 1000)
            torch.testing.assert_close(found, alone, atol=1e-5, rtol=0)


def test_states_read_together_equal_those_of_the_whole_text(model):
    layers = n_layers(model) // 2
    for tree, found in zip(TREES, end_states(model, TREES, 1000), strict=True):
        for response, state in zip(tree.responses, found, strict=True):
            ids = torch.tensor([[*tree.prompt, *response]])
            with torch.no_grad():
                whole = model.model(ids, output_hidden_states=True).hidden_states
            expected = torch.cat([layer[0, -1] for layer in whole[layers + 1 :]])
            torch.testing.assert_close(state, expected, atol=1e-5, rtol=1e-5)


def computed(monkeypatch, model, trees, **options):
    """Count the tokens that the layers see."""
    seen = []
    for place in (score, mapping):
        for name in ("hidden_states", "read_prefix"):
            if hasattr(place, name):
                inner = getattr(place, name)

                def counting(network, what, *rest, inner=inner):
                    seen.append(len(what) if isinstance(what, list) else what.ids.numel())
                    return inner(network, what, *rest)

                monkeypatch.setattr(place, name, counting)
    token_logprobs(model, trees, 1, **options)
    return sum(seen)


def test_a_token_is_computed_once(monkeypatch, model):
    distinct = SHARED_TOKENS + 2 + 6 + 1 + 4 + 3 + 4
    assert computed(monkeypatch, model, TREES) == distinct


def test_reading_as_trained_puts_no_trees_together(monkeypatch, model):
    whole = sum(tree.length for tree in TREES)
    assert computed(monkeypatch, model, TREES, as_trained=True) == whole


@pytest.mark.parametrize("max_tokens", [1, 1000])
def test_a_row_is_computed_in_one_way_beside_any_neighbours(monkeypatch, model, max_tokens):
    """Read alone or together, a step's rows have the beginning that all of the set share."""
    splits = []
    inner = packing.run_backbone

    def watching(network, ids, *rest):
        splits.append(ids.shape[1])
        return inner(network, ids, *rest)

    monkeypatch.setattr(packing, "run_backbone", watching)
    token_logprobs(model, ROWS, max_tokens, as_trained=True)
    assert splits[::2] == [SHARED_TOKENS] * (len(splits) // 2)
    assert len(splits) == (6 if max_tokens == 1 else 2)


def test_a_beginning_is_shared_in_training_if_it_is_a_fair_part(model):
    assert shared_in_training(ROWS) == SHARED_TOKENS
    long = [Tree(tree.prompt, [[7] * 7 * SHARED_TOKENS]) for tree in ROWS]
    assert shared_in_training(long) == 0
    assert shared_in_training(ROWS[:1]) == shared_in_training([]) == 0


def test_progress_counts_the_trees_that_were_given(model):
    told = []
    token_logprobs(model, TREES, 1, told.append)
    assert sum(told) == len(TREES)
    assert len(told) == 3  # a row for each prompt


def test_rows_of_one_prompt_stay_within_the_width():
    long = [7] * (WIDEST // 3 + 1)
    trees = [Tree([1, 2], [long]), Tree([1, 2], [long]), Tree([1, 2], [long]), Tree([3], [long])]
    rows, places = join(trees)
    assert [len(row.responses) for row in rows] == [2, 1, 1]
    assert places == [(0, 0), (0, 1), (1, 0), (2, 0)]
    wide = [7] * (WIDEST + 1)
    assert join([Tree([1], [wide, wide])]).rows == [Tree([1], [wide, wide])]


def test_every_prompt_keeps_a_token_that_predicts_its_reply():
    assert shared_beginning([SYSTEM, [*SYSTEM, 5]]) == 0  # one less would be too few
    longer = [*SYSTEM, 4]
    assert shared_beginning([longer, [*longer, 5]]) == SHARED_TOKENS
    assert shared_beginning([longer, longer]) == SHARED_TOKENS
    assert shared_beginning([longer]) == shared_beginning([]) == 0


def test_nothing_is_read_of_nothing(model):
    assert map_responses(model, [], 10, lambda packed, before: packed.ids) == []


ROWS = [Tree([*SYSTEM, *range(n)], [[8, 9, n], [10]]) for n in (1, 3, 2)]
"""A batch as a training reads it."""


def tokens_of(monkeypatch):
    """Take down how many tokens each pass over the layers computes."""
    seen = []
    inner = packing.run_backbone

    def counting(network, ids, *rest):
        seen.append(ids.numel())
        return inner(network, ids, *rest)

    monkeypatch.setattr(packing, "run_backbone", counting)
    return seen


@pytest.mark.parametrize("responses", [1, 2])
def test_a_training_step_computes_the_shared_beginning_once(monkeypatch, model, responses):
    trees = [Tree(tree.prompt, tree.responses[:responses]) for tree in ROWS]
    packed = pack(trees, shared=shared_in_training(trees))
    rows, width = packed.ids.shape
    seen = tokens_of(monkeypatch)
    whole = hidden_states(model, packed)
    assert seen == [packed.shared, rows * (width - packed.shared)]
    assert packed.shared == SHARED_TOKENS
    alone = hidden_states(model, packed._replace(shared=0))
    torch.testing.assert_close(
        whole[packed.row, packed.before], alone[packed.row, packed.before], atol=1e-5, rtol=0
    )
    gradients = []
    for states in (whole, alone):
        model.zero_grad()
        states[packed.row, packed.before].square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for together, apart in zip(*gradients, strict=True):
        torch.testing.assert_close(together, apart, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["compiled", "computed twice", "sharded"])
def test_layers_that_take_no_earlier_keys_read_whole_rows(monkeypatch, model, kind):
    packed = pack(ROWS, shared=SHARED_TOKENS)
    seen = tokens_of(monkeypatch)
    if kind == "compiled":
        monkeypatch.setattr(model, COMPILED, True, raising=False)
    elif kind == "sharded":
        monkeypatch.setattr(packing, "FSDPModule", type(blocks(model)[0]))
    else:
        for layer in blocks(model):
            monkeypatch.setattr(layer, "gradient_checkpointing", True)
    with torch.no_grad():
        hidden_states(model, packed)
    assert seen == [packed.ids.numel()]
