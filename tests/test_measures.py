"""Entropy and KL of the systems at the temperature of sampling, by definition; styles by hand."""

from dataclasses import replace

import pytest
import torch
from hydra import compose, initialize_config_dir
from tiny import randomise, tiny_config

from cai.composition import CONF, typed
from cai.contracts.table import stages
from cai.dialogue import human
from cai.evaluation.measures import style_metrics, token_metrics
from cai.evaluation.systems import Context, System
from cai.evasiveness.classifier import Style
from cai.lm.load import load_model
from cai.results.systems import Reply

TALK = (human("Why?"),)


def context(model, temperature):
    keys = ("stage=evaluate", "model=tiny", "scale=tour", "hardware=cpu", "hardware.threads=1")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("config", overrides=[*keys, f"evaluate.temperature={temperature}"])
    config = typed(composed)
    return Context(stages()["evaluate"].read(config), config.hardware, model, [])


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


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_kl_and_entropy_by_definition(model, temperature):
    replies = [[9, 40, 77, model.chat.stop_id], [50, 51]]
    rows = [row(tokens, f"p{n}") for n, tokens in enumerate(replies)]
    system, reference = System("rl", "m", "a"), System("sl_cai", "m", "b")
    found = token_metrics(context(model, temperature), rows, system, reference)
    kl, entropies = [], []
    for tokens in replies:
        (own, entropy), (other, _) = (
            by_definition(model, name, tokens, temperature) for name in ("a", "b")
        )
        kl.append(float((own - other).sum()))
        entropies.append(entropy)
    assert found["kl"].value == pytest.approx(sum(kl) / 2, abs=1e-4)
    assert found["entropy"].value == pytest.approx(float(torch.cat(entropies).mean()), abs=1e-4)
    same = token_metrics(context(model, temperature), rows, system, System("x", "m", "a"))
    assert same["kl"].value == 0


def test_greedy_replies_are_measured_at_temperature_one(model):
    rows, system = [row([9, 40])], System("rl", "m", "a")
    greedy, plain = (
        token_metrics(context(model, t), rows, system, System("sl_cai", "m", "b"))
        for t in (0.0, 1.0)
    )
    assert greedy == plain


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
