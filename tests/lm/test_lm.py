"""The engine against brute force: one sequence at a time, everything recomputed."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from cai.errors import UserError
from cai.lm.generate import Sampling, _uniforms, generate, stream
from cai.lm.packing import Tree, batches_of, hidden_states, pack, read_prefix
from cai.lm.score import Shaping, option_logprobs, response_scores, token_logprobs

STOP = frozenset({3})


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).eval()


PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14, 15], [16, 17], [5, 6], [20, 21, 22, 23]]
SEEDS = [11, 12, 13, 14, 15, 16]


def logprobs_by_definition(model, prompt, response):
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *response]])).logits[0].double().log_softmax(-1)
    return torch.stack([logits[len(prompt) - 1 + t, token] for t, token in enumerate(response)])


def sample_by_definition(model, prompt, seed, sampling):
    tokens = []
    for step in range(sampling.max_new_tokens):
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *tokens]])).logits[0, -1].double()
        if step < sampling.min_new_tokens:
            logits[list(STOP)] = -torch.inf
        if sampling.temperature == 0:
            token = int(logits.argmax())
        else:
            cumulative = (logits / sampling.temperature).softmax(-1).cumsum(-1)
            uniform = _uniforms(seed, sampling.max_new_tokens)[step]
            token = int((cumulative <= uniform).sum())
        tokens.append(token)
        if token in STOP:
            break
    return tokens


@pytest.mark.parametrize("temperature", [0.0, 1.0, 0.7])
@pytest.mark.parametrize("minimum", [0, 6])
def test_sampling_equals_full_recomputation(model, temperature, minimum):
    sampling = Sampling(24, minimum, temperature)
    expected = [sample_by_definition(model, p, s, sampling) for p, s in zip(PROMPTS, SEEDS)]
    got = generate(model, PROMPTS, SEEDS, sampling, STOP, batch_size=4)
    assert [c.tokens for c in got] == expected
    assert [c.finished for c in got] == [tokens[-1] in STOP for tokens in expected]


def test_rows_do_not_depend_on_the_batch(model):
    sampling = Sampling(24)
    runs = [generate(model, PROMPTS, SEEDS, sampling, STOP, batch_size=b) for b in (1, 3, 8)]
    assert [c.tokens for c in runs[0]] == [c.tokens for c in runs[1]] == [c.tokens for c in runs[2]]
    assert {c.finished for c in runs[0]} == {True, False}, "both ways to end are wanted"
    shuffled = generate(model, PROMPTS[::-1], SEEDS[::-1], sampling, STOP, batch_size=3)
    assert [c.tokens for c in shuffled[::-1]] == [c.tokens for c in runs[0]]


def test_another_seed_gives_another_row(model):
    one = generate(model, PROMPTS, SEEDS, Sampling(24), STOP, batch_size=8)
    other = generate(model, PROMPTS, [s + 1 for s in SEEDS], Sampling(24), STOP, batch_size=8)
    assert [c.tokens for c in one] != [c.tokens for c in other]


def test_a_stream_is_the_same_response_token_by_token(model):
    ended = set()
    for sampling in (Sampling(24), Sampling(12, 4, 0.7), Sampling(6, 0, 0)):
        found = generate(model, PROMPTS[:3], SEEDS, sampling, STOP, batch_size=2)
        for prompt, seed, completion in zip(PROMPTS, SEEDS, found):
            assert list(stream(model, prompt, seed, sampling, STOP)) == completion.tokens
            ended.add(completion.finished)
    assert ended == {True, False}


def test_a_shared_prefix_changes_nothing(model):
    prompts = [[*range(10, 30), *prompt] for prompt in PROMPTS]
    together = generate(model, prompts, SEEDS, Sampling(16), STOP, batch_size=4)
    alone = [
        generate(model, [prompt], [seed], Sampling(16), STOP, batch_size=1)[0]
        for prompt, seed in zip(prompts, SEEDS)
    ]
    assert [c.tokens for c in together] == [c.tokens for c in alone]


@pytest.mark.filterwarnings("error::FutureWarning")
def test_a_cache_is_handed_over_by_the_name_that_transformers_has_for_it(model):
    read_prefix(model, [5, 6, 7])


def test_the_sampler_agrees_with_the_scorer(model):
    got = generate(model, PROMPTS, SEEDS, Sampling(24), STOP, batch_size=4)
    trees = [Tree(p, [c.tokens]) for p, c in zip(PROMPTS, got)]
    for completion, [scores] in zip(got, token_logprobs(model, trees, 64)):
        torch.testing.assert_close(torch.tensor(completion.logprobs), scores, atol=1e-4, rtol=0)


def test_both_speak_of_the_distribution_that_was_sampled_from(model):
    got = generate(model, PROMPTS, SEEDS, Sampling(24, 6, 0.7), STOP, batch_size=4)
    packed = pack([Tree(p, [c.tokens]) for p, c in zip(PROMPTS, got)])
    with torch.no_grad():
        hidden = hidden_states(model, packed)
        scores = response_scores(model, hidden, packed, shaping=Shaping(STOP, 6, 0.7)).logprobs
    sampled = torch.tensor([value for completion in got for value in completion.logprobs])
    torch.testing.assert_close(scores, sampled, atol=1e-4, rtol=0)


def test_barred_stop_tokens_are_out_of_the_distribution(model):
    free = generate(model, PROMPTS, SEEDS, Sampling(1), STOP, batch_size=8)
    barred = generate(model, PROMPTS, SEEDS, Sampling(1, min_new_tokens=1), STOP, batch_size=8)
    for prompt, a, b in zip(PROMPTS, free, barred):
        if a.tokens == b.tokens:
            with torch.no_grad():
                p = model(torch.tensor([prompt])).logits[0, -1].softmax(-1)
            # log p / (1 - p_stop)
            renormalised = (p[b.tokens[0]] / (1 - p[3])).log()
            assert b.logprobs[0] == pytest.approx(float(renormalised), abs=1e-4)


def test_nothing_in_nothing_out(model):
    assert generate(model, [], [], Sampling(4), STOP, batch_size=2) == []
    assert token_logprobs(model, [], 64) == []


def test_a_prompt_beyond_the_context_is_refused(model):
    with pytest.raises(UserError, match="context of 128"):
        generate(model, [[5] * 120], [1], Sampling(9), STOP, batch_size=1)


TREES = [
    Tree([5, 6, 7], [[8, 9], [10, 11, 12, 13]]),
    Tree([14], [[15], [16, 17]]),
    Tree([20, 21, 22, 23, 24, 25], [[26, 27, 28]]),
]


def test_packed_branches_equal_separate_sequences(model):
    for tree, scores in zip(TREES, token_logprobs(model, TREES, 1000)):
        for response, got in zip(tree.responses, scores):
            expected = logprobs_by_definition(model, tree.prompt, response)
            torch.testing.assert_close(got.double(), expected, atol=1e-5, rtol=0)


def test_packed_gradients_equal_separate_gradients(model):
    packed = pack(TREES)
    model.zero_grad()
    response_scores(model, hidden_states(model, packed), packed).logprobs.sum().backward()
    together = model.model.layers[0].self_attn.q_proj.weight.grad.clone()
    model.zero_grad()
    for tree in TREES:
        for response in tree.responses:
            logits = model(torch.tensor([[*tree.prompt, *response]])).logits[0].log_softmax(-1)
            start = len(tree.prompt) - 1
            sum(logits[start + t, token] for t, token in enumerate(response)).backward()
    torch.testing.assert_close(
        together, model.model.layers[0].self_attn.q_proj.weight.grad, atol=1e-4, rtol=1e-4
    )


def test_padding_holds_nothing(model):
    a, b = pack(TREES, pad_id=0), pack(TREES, pad_id=39)
    assert not torch.equal(a.ids, b.ids)
    scores = [response_scores(model, hidden_states(model, p), p).logprobs for p in (a, b)]
    torch.testing.assert_close(*scores)


def test_entropy_by_definition(model):
    packed = pack(TREES[2:])
    scores = response_scores(model, hidden_states(model, packed), packed, with_entropy=True)
    with torch.no_grad():
        p = model(packed.ids).logits[0, 5:8].double().softmax(-1)
    expected = -(p * p.log()).sum(-1)
    torch.testing.assert_close(scores.entropies.double(), expected, atol=1e-5, rtol=1e-5)


def test_grid_puts_values_in_their_places():
    packed = pack(TREES)
    grid = packed.grid(packed.targets.float(), fill=-1.0)
    assert grid.tolist()[:2] == [[8, 9, -1, -1], [10, 11, 12, 13]]
    assert grid.shape == (5, 4)


@pytest.mark.parametrize("prefix", [[], list(range(20, 38))])
def test_options_with_a_reused_prefix_equal_separate_passes(model, prefix):
    suffixes = [[5, 6], [7, 8, 9, 10], [11]]
    options = [[12, 13, 14], [12, 15, 14], [16]]
    got = option_logprobs(model, [[*prefix, *suffix] for suffix in suffixes], options, 4096)
    for n, suffix in enumerate(suffixes):
        for k, option in enumerate(options):
            expected = logprobs_by_definition(model, [*prefix, *suffix], option).sum()
            assert float(got[n, k]) == pytest.approx(float(expected), abs=1e-4)


def test_batches_hold_every_tree_once_and_stay_small():
    trees = [Tree([1] * n, [[2]]) for n in (5, 1, 9, 3, 3, 7, 2)]
    groups = list(batches_of(trees, max_tokens=20))
    assert sorted(i for group in groups for i in group) == list(range(7))
    for group in groups:
        assert len(group) == 1 or len(group) * max(trees[i].length for i in group) <= 20
