"""A chat template with all inside that this project gives it writes what this project writes."""

import families
import pytest
from tiny import tiny_config, tiny_hardware
from transformers import AutoTokenizer

from cai.config import Dialect, ModelSource
from cai.dialogue import Role, Turn, human, to_messages
from cai.lm.alone import generation_alone, template_alone, tokenizer_alone
from cai.lm.load import load_model, load_unweighted

TALKS = [
    (human("How do herons fish?"),),
    (human("Hi"), Turn(Role.ASSISTANT, "Hello there."), human("Why?")),
]


@pytest.fixture(scope="module", params=families.FAMILIES)
def config(request, tmp_path_factory):
    folder = families.make(tmp_path_factory.mktemp("family") / "model", request.param)
    kind = families.FAMILIES[request.param]
    return tiny_config(source=ModelSource.folder, path=str(folder), dialect=kind.dialect)


@pytest.mark.parametrize("talk", TALKS, ids=["one turn", "several"])
def test_a_plain_tokenizer_writes_our_prompts(config, talk, tmp_path):
    chat = load_unweighted(config, tiny_hardware()).chat
    tokenizer_alone(chat).save_pretrained(tmp_path)
    plain = AutoTokenizer.from_pretrained(tmp_path)
    ids = plain.apply_chat_template(
        to_messages(talk), add_generation_prompt=True, return_dict=False
    )
    assert ids == chat.prompt(talk)


def test_options_of_the_template_are_in_it(config):
    chat = load_unweighted(config, tiny_hardware()).chat
    if chat.dialect is Dialect.chat and chat.dates:
        assert "strftime_now" in str(chat.tokenizer.get_chat_template())
    assert "strftime_now" not in template_alone(chat)
    for name in chat.template_options:
        assert f"set {name} = " in template_alone(chat)


def test_what_is_described_without_weights_ends_its_replies_as_the_model_does(config):
    with_weights = load_model(config, tiny_hardware())
    without = load_unweighted(config, tiny_hardware())
    assert without.chat.stop_ids == with_weights.chat.stop_ids
    assert without.network.device.type == "meta"
    made = generation_alone(without.chat, 0.6)
    assert made.eos_token_id == sorted(with_weights.stop_ids)
    assert made.pad_token_id is not None
