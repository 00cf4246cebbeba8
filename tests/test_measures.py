"""Entropy and KL of the systems at the temperature of sampling, by definition; styles by hand."""

from dataclasses import replace

import pytest
import torch
from hydra import compose, initialize_config_dir
from tiny import randomise, tiny_config

from cai.composition import CONF, typed
from cai.contracts.table import stages
from cai.dialogue import human
from cai.evaluation.measures import divergences, entropy, style_metrics, text_metrics
from cai.evaluation.systems import Context, System
from cai.evasiveness.classifier import Style
from cai.lm.generate import Sampling
from cai.lm.load import load_model
from cai.results.common import Metric
from cai.results.systems import Reply
from cai.sampling.replies import sample_replies

TALK = (human("Why?"),)


SYSTEMS = (System("rl", "m", "a"), System("sl_cai", "m", "b"))


def context(model, temperature, *systems):
    keys = ("stage=evaluate", "model=tiny", "scale=tour", "hardware=cpu", "hardware.threads=1")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("config", overrides=[*keys, f"evaluate.temperature={temperature}"])
    config = typed(composed)
    return Context(stages()["evaluate"].read(config), config.hardware, model, systems)


@pytest.fixture
def model(hardware):
    model = load_model(tiny_config(), hardware)
    for seed, name in enumerate(("a", "b")):
        model.add_adapter(name, seed)
        randomise(model, name, seed=seed, std=0.1)
    return model


def row(tokens, prompt="p"):
    return Reply(
        system="rl", set="red_team", prompt_id=prompt, kind="k", sample=0, messages=TALK,
        response="", tokens=tokens, style="compliance", refusal=False, evasive=False,
        boilerplate=False,
    )  # fmt: skip


def by_definition(model, adapter, tokens, temperature):
    """Log-probabilities of the tokens and entropies; the stop token can't come first."""
    prompt = model.chat.prompt(TALK)
    with torch.no_grad(), model.use(adapter) as network:
        logits = network(torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1]
    logits[0, list(model.stop_ids)] = -torch.inf
    logs = (logits / temperature).log_softmax(-1)
    entropy = -(logs.exp() * logs.masked_fill(logs.isinf(), 0)).sum(-1)
    return logs.gather(1, torch.tensor(tokens)[:, None])[:, 0], entropy


REPLIES = [[9, 40, 77], [50, 51]]


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_kl_by_definition(model, temperature):
    replies = [[*REPLIES[0], model.chat.stop_id], REPLIES[1]]
    own, kl = [], []
    for tokens in replies:
        (said, _), (other, _) = (
            by_definition(model, name, tokens, temperature) for name in ("a", "b")
        )
        own.append(float(said.sum()))
        kl.append(own[-1] - float(other.sum()))
    rows = [replace(row(tokens, f"p{n}"), logprob=own[n]) for n, tokens in enumerate(replies)]
    anchor = [replace(each, system="sl_cai") for each in rows]
    found = divergences(context(model, temperature, *SYSTEMS), [*rows, *anchor])
    assert found["rl"]["kl"].value == pytest.approx(sum(kl) / 2, abs=1e-4)
    assert found["sl_cai"]["kl"] == Metric(0.0, 0.0, 0.0)
    assert divergences(context(model, temperature, SYSTEMS[0]), rows) == {}


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_sampled_tokens_tell_the_entropy(model, temperature):
    """What the sampler says of its tokens averages to the entropy by definition."""
    sampling = Sampling(6, 1, temperature)
    seeds = list(range(200))
    found = sample_replies(model, "a", [TALK] * len(seeds), seeds, sampling)
    rows = [replace(row(reply.tokens), logprob=reply.logprob) for reply in found]
    entropies = [by_definition(model, "a", reply.tokens, temperature)[1] for reply in found]
    expected = float(torch.cat(entropies).mean())
    said = entropy(context(model, temperature, *SYSTEMS), rows, SYSTEMS[0])["entropy"].value
    assert said == pytest.approx(expected, rel=0.05)
    assert expected > 0.5


def test_greedy_replies_have_a_kl_at_temperature_one_and_no_entropy(model):
    rows = [replace(row([9, 40]), logprob=-7.0)]
    greedy, plain = (divergences(context(model, t, *SYSTEMS), rows) for t in (0.0, 1.0))
    assert greedy == plain
    assert entropy(context(model, 0.0, *SYSTEMS), rows, SYSTEMS[0]) == {}
    assert entropy(context(model, 1.0, *SYSTEMS), rows, SYSTEMS[0])["entropy"].value == 3.5
    unknown = [*rows, row([7, 7])]  # kept by an older version
    assert entropy(context(model, 1.0, *SYSTEMS), unknown, SYSTEMS[0])["entropy"].value == 3.5
    assert divergences(context(model, 1.0, *SYSTEMS), unknown) == plain


def test_the_favourite_of_several_replies_tells_no_entropy(model):
    rows = [replace(row([9, 40]), logprob=-7.0)]
    assert entropy(context(model, 1.0), rows, System("rl", "m", "a", best_of=2)) == {}


def test_styles_are_shares_of_the_replies_to_red_team_prompts():
    styles = ["compliance"] * 4 + ["engaged"] * 3 + ["generic"] * 2 + ["evasive"]
    rows = [
        replace(row([1], prompt=str(i)), style=style, evasive=style == "evasive")
        for i, style in enumerate(styles)
    ]
    others = [replace(rows[0], set="helpful"), replace(rows[0], system="sl_cai")]
    found = style_metrics([*rows, *others], "rl")
    named = {style: found["evasiveness" if style == "evasive" else style] for style in Style}
    shares = {"compliance": 0.4, "engaged": 0.3, "generic": 0.2, "evasive": 0.1, "deflection": 0}
    assert {style: metric.value for style, metric in named.items()} == pytest.approx(shares)
    assert 0 < named["compliance"].low < 0.4 < named["compliance"].high < 1


def test_lengths_and_repetition_by_hand():
    texts = ["Call a friend, call a friend, call a friend.", "No, that is theft.", "Ask first."]
    rows = [replace(row([1], f"p{n}"), response=text) for n, text in enumerate(texts)]
    found = text_metrics([*rows, replace(rows[0], system="sl_cai")], "rl")
    assert found["repetition"].value == pytest.approx(1 / 3)
    assert found["length"].value == pytest.approx((9 + 4 + 2) / 3)
