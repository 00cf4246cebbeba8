"""Every family reads, samples and adapts as its own forward pass, template and peft do."""

from datetime import datetime

import families
import pytest
import torch
from peft import PeftModel
from tiny import randomise, tiny_config
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)
from transformers.utils import chat_template_utils

from cai.config import Dialect, ModelSource
from cai.dialogue import Role, Turn, human, to_messages, to_text
from cai.lm import template
from cai.lm.adapters import coverage, find_targets
from cai.lm.generate import Sampling, generate
from cai.lm.heads import ScalarHead, ScalarModel, own_network, save_model
from cai.lm.load import load_model
from cai.lm.packing import Tree
from cai.lm.score import option_logprobs, token_logprobs
from cai.lm.usage import has_classifier, padding, scoring_code
from cai.training.preference import score_responses

REPLY = "Sure (that is fine)."
TALKS = [
    (human("How do I make bread at home, step by step, from flour and water?"),),
    (human("Hi"), Turn(Role.ASSISTANT, "Hello there."), human("Why? " * 30 + "Say it.")),
    (human("Hi"),),
]


@pytest.fixture
def on_that_day(monkeypatch):
    """Lets the library believe that it is the day that every template is told."""

    class Day(datetime):
        @classmethod
        def now(cls, tz=None):
            return template.TODAY

    monkeypatch.setattr(chat_template_utils, "datetime", Day)


@pytest.fixture(scope="module", params=families.FAMILIES)
def family(request, tmp_path_factory):
    folder = families.make(tmp_path_factory.mktemp("family") / "model", request.param)
    return families.FAMILIES[request.param], folder


@pytest.fixture
def model(family, hardware):
    kind, folder = family
    config = tiny_config(
        source=ModelSource.folder, path=str(folder), dialect=kind.dialect, context=4096
    )
    return load_model(config, hardware)


def rendering(chat, talk, prompt):
    """The ids as the library makes them from the template, or from the text with its BOS."""
    if chat.dialect is Dialect.text:
        text = to_text(talk).lstrip("\n") + ("\n\nAssistant:" if prompt else "")
        return chat.tokenizer(text)["input_ids"]
    return chat.tokenizer.apply_chat_template(
        to_messages(talk),
        add_generation_prompt=prompt,
        enable_thinking=False,
        return_dict=False,
    )


@torch.no_grad()
def logprobs(network, prompt, response):
    ids = torch.tensor([[*prompt, *response]])
    scores = network(input_ids=ids).logits[0, len(prompt) - 1 : -1].float().log_softmax(-1)
    return scores.gather(-1, torch.tensor(response)[:, None]).squeeze(-1)


@pytest.mark.parametrize("talk", TALKS)
def test_ids_are_those_of_the_templates_rendering(model, talk, on_that_day):
    chat = model.chat
    prompt = chat.prompt(talk)
    assert prompt == rendering(chat, talk, prompt=True)
    whole = rendering(chat, (*talk, Turn(Role.ASSISTANT, REPLY)), prompt=False)
    said = [*prompt, *chat.response(REPLY)]
    trailing = chat.tokenizer(" ", add_special_tokens=False)["input_ids"]
    if whole[len(said) - 1 : len(said) - 1 + len(trailing)] == trailing:
        whole = whole[: len(said) - 1] + whole[len(said) - 1 + len(trailing) :]
    if chat.dialect is Dialect.text:
        whole = [*whole, chat.stop_id]
    assert whole[: len(said)] == said, "prompt and reply must be the rendering of the dialogue"
    assert chat.decode(chat.response(REPLY)) == REPLY


def test_options_are_encoded_as_in_running_text(model):
    chat = model.chat
    [option] = chat.options([" (A)"])
    prompt = chat.prompt(TALKS[0], "The answer is:")
    assert [*prompt, *option] == chat.prompt(TALKS[0], "The answer is: (A)")


def test_text_never_becomes_a_control_token(model):
    chat = model.chat
    added = set(chat.tokenizer.added_tokens_decoder)
    plain = [i for i in chat.prompt((human("Hi"),)) if i in added]
    words = families.WORDS
    marks = {mark for kind in words.values() for mark in (*kind.controls, *kind.added)}
    attack = "Hi" + "".join(sorted(mark for mark in marks if mark.strip()))
    assert [i for i in chat.prompt((human(attack),)) if i in added] == plain
    assert [i for i in chat.response(attack) if i in added] == [chat.stop_id]


def test_the_sampler_agrees_with_the_forward_pass(model, record_property):
    prompts, sampled = sample(model)
    gaps = [
        torch.tensor(row.logprobs) - logprobs(model.network, prompt, row.tokens)
        for prompt, row in zip(prompts, sampled)
    ]
    widest = float(torch.cat(gaps).abs().max())
    record_property("shown", f"{widest:.0e}")
    assert widest < 1e-4


def test_packed_rows_equal_separate_ones(model, record_property):
    trees = [Tree(p, [row.tokens, row.tokens[3:9]]) for p, row in zip(*sample(model))]
    gaps = [
        got - logprobs(model.network, tree.prompt, response)
        for tree, scores in zip(trees, token_logprobs(model.network, trees, 4096))
        for response, got in zip(tree.responses, scores)
    ]
    widest = float(torch.cat(gaps).abs().max())
    record_property("shown", f"{widest:.0e}")
    assert widest < 1e-5


def sample(model):
    """Replies of 24 tokens, two at a time, and what they reply to."""
    prompts = [model.chat.prompt(talk) for talk in TALKS]
    how = Sampling(24, 8)
    return prompts, generate(model.network, prompts, [1, 2, 3], how, frozenset(), batch_size=2)


def test_options_after_a_shared_prefix_agree_with_the_forward_pass(model):
    prefix, suffixes = model.chat.prompt(TALKS[1]), [[5, 6, 7], [8]]
    options = model.chat.options([" (A)", " (B)"])
    prompts = [[*prefix, *suffix] for suffix in suffixes]
    got = option_logprobs(model.network, prompts, options, 4096)
    for n, suffix in enumerate(suffixes):
        for k, option in enumerate(options):
            own = logprobs(model.network, [*prefix, *suffix], option).sum()
            assert float(got[n, k]) == pytest.approx(float(own), abs=1e-4)


def test_greedy_replies_equal_generates(model):
    prompts = [model.chat.prompt(talk) for talk in TALKS]
    got = generate(
        model.network, prompts, [0] * 3, Sampling(24, 0, 0.0), model.stop_ids, batch_size=3
    )
    for prompt, row in zip(prompts, got):
        ids = torch.tensor([prompt])
        theirs = model.network.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=24,
            eos_token_id=sorted(model.stop_ids),
            pad_token_id=0,
        )
        assert row.tokens == theirs[0, len(prompt) :].tolist()


def test_adapters_reach_nearly_all_and_load_in_peft(model, family, tmp_path):
    targets = find_targets(load_plain(family), model.config.lora)
    assert coverage(load_plain(family), targets).share > 0.97
    model.add_adapter("one", 0)
    randomise(model, "one")
    ids = torch.tensor([model.chat.prompt(TALKS[0])])
    with torch.no_grad():
        with model.use("one") as network:
            beside = network(input_ids=ids).logits
        with model.sampling("one") as network:
            folded = network(input_ids=ids).logits
        bare = load_plain(family)(input_ids=ids).logits
        assert not torch.allclose(beside, bare, atol=1e-2)
        torch.testing.assert_close(folded, beside, atol=2e-4, rtol=1e-3)
        save_model(model, "one", tmp_path / "saved")
        peft = PeftModel.from_pretrained(load_plain(family), tmp_path / "saved").eval()
        torch.testing.assert_close(peft(input_ids=ids).logits, beside, atol=1e-4, rtol=1e-3)


def test_a_preference_model_scores_in_plain_transformers_as_its_card_says(
    model, family, tmp_path, record_property
):
    """Also in a batch, for every choice of padding."""
    if not has_classifier(model.network):
        assert "cai.score" in scoring_code(model, False, 0.0)
        record_property("shown", "no class")
        return
    model.add_adapter("pm", 0)
    randomise(model, "pm")
    head = ScalarHead(model.hidden_size, seed=1)
    save_model(model, "pm", tmp_path / "pm", head)
    replies = [REPLY, "No."]
    tree = Tree(model.chat.prompt(TALKS[0]), [model.chat.response(reply) for reply in replies])
    with model.use("pm"):
        [ours] = score_responses(model, head, [tree], 4096)
    given = {"BASE": str(family[1]), "THIS_FOLDER": str(tmp_path / "pm")}
    for reply, score in zip(replies, ours):
        found = {**given, "PROMPT": TALKS[0][0].text, "REPLY": reply}
        exec(scoring_code(model, False, 0.5), found)
        assert found["score"] == pytest.approx(score - 0.5, abs=1e-4)
    if padding(model.chat) is not None:
        rows = [[*tree.prompt, *response] for response in tree.responses]
        batch = found["tokenizer"].pad({"input_ids": rows}, return_tensors="pt")
        with torch.no_grad():
            together = found["model"](**batch).logits.squeeze(-1).tolist()
        assert together == pytest.approx(ours, abs=1e-4)


@pytest.mark.parametrize("name", ["SmolLM3", "Phi-3", "GPT-2"])
def test_a_whole_preference_model_scores_elsewhere_where_padding_is_the_end(
    name, hardware, tmp_path
):
    """Its folder alone, config and tokenizer included, gives our scores, also in a batch."""
    kind, folder = families.FAMILIES[name], families.make(tmp_path / "base", name)
    config = tiny_config(
        source=ModelSource.folder, path=str(folder), dialect=kind.dialect, context=4096
    )
    base = AutoTokenizer.from_pretrained(folder)
    assert base.pad_token in {None, base.eos_token}, "the case that this is about"
    model = own_network(config, hardware)
    head = ScalarHead(model.hidden_size, seed=1)
    replies = [REPLY, "No."]
    tree = Tree(model.chat.prompt(TALKS[0]), [model.chat.response(reply) for reply in replies])
    [ours] = score_responses(model, head, [tree], 4096)
    saved = tmp_path / "pm"
    ScalarModel(model, None, head).save(saved)
    theirs = AutoModelForSequenceClassification.from_pretrained(saved).eval()
    tokenizer = AutoTokenizer.from_pretrained(saved)
    rows = [[*tree.prompt, *response] for response in tree.responses]
    with torch.no_grad():
        alone = [float(theirs(torch.tensor([row])).logits) for row in rows]
        assert alone == pytest.approx(ours, abs=1e-4)
        if padding(model.chat) is not None:
            assert tokenizer.pad_token_id == theirs.config.pad_token_id != model.chat.stop_id
            batch = tokenizer.pad({"input_ids": rows}, return_tensors="pt")
            together = theirs(**batch).logits.squeeze(-1).tolist()
            assert together == pytest.approx(ours, abs=1e-4)
            theirs.config.pad_token_id = model.chat.stop_id  # as the base's config has it
            wrong = [float(theirs(torch.tensor([row])).logits) for row in rows]
            assert wrong != pytest.approx(ours, abs=1e-2)


def load_plain(family):
    return AutoModelForCausalLM.from_pretrained(family[1]).eval()
