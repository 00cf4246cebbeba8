"""A real vLLM server beside the local sampler: the same replies, and nearly the same numbers.

CAI_TEST_VLLM is the interpreter of an environment with vLLM, or the address of a server that has
the default model, started as conf/sampler/vllm.yaml says.
"""

import os

import pytest
import torch
from hydra import compose, initialize_config_dir
from tiny import randomise

from cai.composition import CONF, typed
from cai.dialogue import human
from cai.lm.generate import Sampling
from cai.lm.packing import Tree
from cai.pipeline.stage import Job
from cai.sampling.speaker import load_speaker
from cai.tracking import Tracker

GIVEN = os.environ.get("CAI_TEST_VLLM", "")
pytestmark = [
    pytest.mark.skipif(not GIVEN, reason="no vLLM: set CAI_TEST_VLLM to its interpreter or URL"),
    pytest.mark.timeout(1800),
]
ASKED = ["Name a bird.", "Where do herons live?", "What is bread made of?", "Say hello."]
BF16 = 0.1
"""Nats per token that rounding to bf16 makes on average, at most."""
TIE = {"fp32": 0.01, "bf16": 1.0}
"""Nats by which two tokens that come next may differ and still be told apart otherwise by the other
engine: rounding alone in fp32, and the most that bf16 moved a log-probability."""


@pytest.fixture(scope="module", params=["bf16"] if GIVEN.startswith("http") else ["fp32", "bf16"])
def dtype(request):
    return request.param


@pytest.fixture(scope="module")
def model(tmp_path_factory, dtype):
    key = "url" if GIVEN.startswith("http") else "python"
    overrides = ["sampler=vllm", f"sampler.{key}={GIVEN}", "tracking=off", "hardware=cpu"]
    overrides += [f"model.dtype={dtype}"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = typed(compose("config", overrides=[*overrides, "hardware.threads=1"]))
    tracker = Tracker("test", tmp_path_factory.mktemp("vllm"))
    job = Job(config.hardware, config.trainer, tracker, config.sampler)
    model = load_speaker(config.model, job)
    assert job.facts["sampler"].startswith("vllm 0.")
    model.add_adapter("one", 0)
    randomise(model, "one", std=0.02)
    return model


@pytest.fixture(scope="module")
def local(model):
    from cai.lm.sampler import LocalSampler

    return LocalSampler(model)


@pytest.fixture(scope="module")
def prompts(model):
    return [model.chat.prompt((human(text),)) for text in ASKED]


@pytest.mark.parametrize("adapter", [None, "one"])
def test_greedy_replies_are_the_same(model, local, prompts, adapter, dtype):
    """Up to the first place where two tokens are equally likely, as far as the precision tells."""
    sampling = Sampling(24, min_new_tokens=2, temperature=0)
    seeds = range(len(prompts))
    theirs = model.sampler.generate(adapter, prompts, seeds, sampling)
    ours = local.generate(adapter, prompts, seeds, sampling)
    for prompt, one, other in zip(prompts, ours, theirs, strict=True):
        n = next((i for i, (a, b) in enumerate(zip(one.tokens, other.tokens)) if a != b), None)
        if n is None:
            assert one.tokens == other.tokens
            assert one.finished == other.finished
            continue
        options = [one.tokens[n : n + 1], other.tokens[n : n + 1]]
        near = local.option_logprobs(adapter, [[*prompt, *one.tokens[:n]]], options)[0]
        assert abs(float(near[0] - near[1])) <= TIE[dtype], (n, near)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_log_probabilities_are_those_of_the_distribution_sampled_from(model, prompts, temperature):
    sampling = Sampling(16, temperature=temperature)
    replies = model.sampler.generate("one", prompts, range(len(prompts)), sampling)
    assert all(1 <= len(reply.tokens) <= 16 for reply in replies)
    assert all(len(reply.tokens) == len(reply.logprobs) for reply in replies)
    assert all(reply.finished == (reply.tokens[-1] in model.stop_ids) for reply in replies)
    assert not any(token in model.stop_ids for reply in replies for token in reply.tokens[:-1])
    trees = [Tree(prompt, [reply.tokens]) for prompt, reply in zip(prompts, replies, strict=True)]
    gaps = []
    with model.use("one") as network:
        for tree, reply in zip(trees, replies, strict=True):
            gaps += _gaps(network, tree, reply, temperature)
    assert sum(gaps) / len(gaps) < BF16, gaps


def _gaps(network, tree, reply, temperature):
    ids = torch.tensor([[*tree.prompt, *tree.responses[0]]])
    low = network.dtype is torch.bfloat16
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=low):
        logits = network(input_ids=ids).logits[0, len(tree.prompt) - 1 : -1].float()
    read = (logits / temperature).log_softmax(-1)
    own = read[torch.arange(len(reply.tokens)), torch.tensor(reply.tokens)]
    return (own - torch.tensor(reply.logprobs)).abs().tolist()


@pytest.mark.parametrize("adapter", [None, "one"])
def test_options_read_as_here(model, local, prompts, adapter):
    options = model.chat.options([" (A)", " (B)", " neither of them"])
    theirs = model.sampler.option_logprobs(adapter, prompts, options)
    ours = local.option_logprobs(adapter, prompts, options)
    assert theirs.shape == ours.shape == (len(prompts), 3)
    lengths = torch.tensor([len(option) for option in options])
    assert ((theirs - ours).abs() / lengths).mean() < BF16


def test_an_adapter_that_has_changed_speaks_as_it_is_now(model, local, prompts, dtype):
    option = [model.chat.continuation("A heron stands in the water.")]

    def read(sampler):
        return float(sampler.option_logprobs("one", prompts[:1], option))

    before = read(model.sampler)
    loaded = dict(model.sampler._loaded)
    assert read(model.sampler) == before
    assert model.sampler._loaded == loaded, "loaded once"
    randomise(model, "one", seed=1, std=0.06)
    after = read(model.sampler)
    near = {"fp32": 0.01, "bf16": BF16}[dtype] * len(option[0])
    assert abs(after - read(local)) < near < abs(after - before)
    [name] = [name for name, _ in loaded.values()]
    assert name not in [m["id"] for m in model.sampler._client._call("GET", "/v1/models")["data"]]
