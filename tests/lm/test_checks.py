"""What is refused when a model is loaded, each in a sentence, and what one base is used for."""

import gc
import json
import re
from functools import partial

import families
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import randomise, tiny_config

from cai.config import AdapterConfig, Dialect, ModelSource
from cai.dialogue import Role, Turn, human
from cai.errors import UserError
from cai.lm import template
from cai.lm.chat import ChatFormat, ChatOptions
from cai.lm.load import load_model


@pytest.fixture
def folder(tmp_path):
    return families.make(tmp_path / "model", "Llama 3")


def load(folder, hardware, **changes):
    given = {"source": ModelSource.folder, "path": str(folder), "context": 512, **changes}
    return load_model(tiny_config(**given), hardware)


def change_weights(folder, change):
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


def change_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


NORM = "model.layers.1.input_layernorm.weight"
WEIGHTS = {
    "missing": (lambda w: w.pop(NORM), f"lacks weights .*{NORM}"),
    "left over": (lambda w: w.update({"score.weight": torch.ones(1)}), "no place for .*score"),
    "of another shape": (lambda w: w.update({NORM: torch.ones(3)}), f"another shape .*{NORM}"),
    "not finite": (lambda w: w[NORM].fill_(torch.nan), f"not finite numbers .*{NORM}"),
}


@pytest.mark.parametrize("fault", WEIGHTS)
def test_weights_are_all_there_and_finite(folder, hardware, fault):
    change, said = WEIGHTS[fault]
    change_weights(folder, change)
    with pytest.raises(UserError, match=said):
        load(folder, hardware)


def test_a_tied_head_that_is_stored_apart_is_refused(folder, hardware):
    change_config(folder, tie_word_embeddings=True)
    with pytest.raises(UserError, match="tie_word_embeddings to false"):
        load(folder, hardware)


def test_a_tokenizer_beyond_the_embeddings_is_refused(folder, hardware):
    tokenizer = families.tokenizer("llama3")
    tokenizer.add_tokens(["<one_more>"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(UserError, match="tokenizer has ids up to"):
        load(folder, hardware)


def test_a_context_beyond_the_positions_is_refused(tmp_path, hardware):
    folder = families.make(tmp_path / "model", "GPT-2", max_position_embeddings=256)
    with pytest.raises(UserError, match=r"model\.context=512 .* use at most 256"):
        load(folder, hardware, dialect=Dialect.text)


def test_positions_end_where_a_row_would_depend_on_its_neighbours(tmp_path, hardware):
    """Longrope turns short rows otherwise when a long one is beside them."""
    rope = {
        "rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 256,
        "short_factor": [1.0] * 8, "long_factor": [float(n) for n in range(2, 10)],
    }  # fmt: skip
    sizes = {"original_max_position_embeddings": 256, "rope_parameters": rope}
    folder = families.make(tmp_path / "model", "Phi-3", **sizes)
    with pytest.raises(UserError, match=r"rows of every length share: use at most 256"):
        load(folder, hardware)
    network = load(folder, hardware, context=256).network
    short, long = torch.arange(9, 19)[None], torch.arange(300)[None] % 50
    alone = network(short).logits
    both = torch.cat([torch.nn.functional.pad(short, (0, 290)), long])
    assert float((network(both).logits[:1, :10] - alone).abs().max()) > 0.1, "what is refused"


@pytest.mark.parametrize("ends", [[7, 99999999], -1])
def test_ends_that_the_model_does_not_know_are_refused(folder, hardware, ends):
    path = folder / "generation_config.json"
    path.write_text(json.dumps({"eos_token_id": ends}))
    with pytest.raises(UserError, match=r"ends replies with the ids .* correct eos_token_id"):
        load(folder, hardware)


@pytest.mark.parametrize(
    ("arch", "said"),
    [("t5", "an encoder and a decoder"), ("gemma3", "reads more than text"),
     ("mamba", "layers of the kind linear_attention"), ("bloom", "takes no position ids"),
     ("gpt_neo", "layers of the kind local_attention")],
)  # fmt: skip
def test_an_architecture_that_can_not_be_read_is_refused(folder, hardware, arch, said):
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 1}
    if arch == "gpt_neo":
        del sizes["num_hidden_layers"]
        sizes |= {"num_layers": 2, "attention_types": [[["global", "local"], 1]], "eos_token_id": 1}
    config = AutoConfig.for_model(arch, **({} if arch == "gemma3" else sizes))
    config.save_pretrained(folder)
    if arch in {"mamba", "bloom", "gpt_neo"}:
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    with pytest.raises(UserError, match=said):
        load(folder, hardware)


def test_layers_to_adapt_must_be_known_and_what_stays_frozen_is_named(folder, hardware, caplog):
    with caplog.at_level("INFO"):
        load(folder, hardware)
        few = load(folder, hardware, lora=AdapterConfig(4, 8, ["q_proj", "v_proj"]))
    [all_layers, some] = [line for line in caplog.messages if "adapters of rank" in line]
    assert re.search(r"rank 4 reach 99\.\d% of the weights$", all_layers)
    assert re.search(r"reach \d\d?\.\d% of the weights; frozen: .*gate_proj.*k_proj", some)
    few.add_adapter("one", 0)
    assert {key.split(".")[-3] for key in few.adapter_state("one")} == {"q_proj", "v_proj"}
    with pytest.raises(UserError, match=r"no layer of this model by 'qkv'.*q_proj"):
        load(folder, hardware, lora=AdapterConfig(4, 8, ["qkv"]))


TEMPLATES = {
    "raises": ("{{ raise_exception('no') }}", "fails on a dialogue .no."),
    "no messages": ("{{ bos_token }}Hello", "leaves out turn 1"),
    "last turn only": ("{{ messages[-1].content }}", "leaves out turn 1"),
    "twice": ("{% for m in messages * 2 %}{{ m.content }}{% endfor %}", "writes turn 1"),
    "backwards": ("{% for m in messages | reverse %}{{ m.content }}{% endfor %}", "another order"),
    "thinks": (
        "{% for m in messages %}{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<think>\n{% endif %}",
        "block of thinking before every reply",
    ),
}


@pytest.mark.parametrize("fault", TEMPLATES)
def test_a_template_that_can_not_be_used_is_refused(fault):
    source, said = TEMPLATES[fault]
    tokenizer = families.tokenizer("llama3")
    tokenizer.chat_template = source
    with pytest.raises(UserError, match=said):
        ChatFormat(tokenizer, Dialect.chat, 512)


def test_a_template_that_never_ends_is_refused(monkeypatch):
    monkeypatch.setattr(template, "PATIENCE", 0.2)
    tokenizer = families.tokenizer("llama3")
    loops = "".join(f"{{% for {name} in range(9999) %}}" for name in "ab") + "{% endfor %}" * 2
    tokenizer.chat_template = loops
    with pytest.raises(UserError, match="never comes to an end"):
        ChatFormat(tokenizer, Dialect.chat, 512)


def test_options_reach_the_template_or_are_refused():
    tokenizer = families.tokenizer("smollm3")
    off = ChatFormat(tokenizer, Dialect.chat, 512)
    assert "/no_think" in off.probe
    with pytest.raises(UserError, match=r"model\.template_options\.colour is unknown"):
        ChatFormat(tokenizer, Dialect.chat, 512, ChatOptions(template={"colour": "red"}))
    on = ChatFormat(tokenizer, Dialect.chat, 512, ChatOptions(template={"enable_thinking": True}))
    assert "/think" in on.probe
    with pytest.raises(UserError, match=r"no say in model\.dialect=text"):
        ChatFormat(tokenizer, Dialect.text, 512, ChatOptions(template={"enable_thinking": True}))


def test_the_day_of_a_template_is_fixed():
    chat = ChatFormat(families.tokenizer("llama3"), Dialect.chat, 512)
    assert "Today Date: 26 Jul 2024" in chat.probe


def test_a_closed_block_of_thinking_is_no_reply():
    chat = ChatFormat(families.tokenizer("qwen3"), Dialect.chat, 512)
    encode = chat.tokenizer.encode
    thought = encode("<think>Hm, no.</think>\n\nSure.")
    assert chat.decode([*thought, chat.stop_id]) == "Sure."
    assert chat.decode(encode("Hm, no.</think>\n\nSure.")) == "Sure."
    assert chat.closed([*thought, chat.stop_id]) == [*encode("Sure."), chat.stop_id]
    assert chat.response("<think>Hm.</think>\n\nSure.") == chat.response("Sure.")
    said = (human("Hi"), Turn(Role.ASSISTANT, "<think>Hm.</think>Sure."), human("And?"))
    bare = (human("Hi"), Turn(Role.ASSISTANT, "Sure."), human("And?"))
    assert chat.prompt(said) == chat.prompt(bare)


def test_thinking_that_is_spelt_out_is_no_reply_either():
    """A template may write marks that are no tokens of their own."""
    tokenizer = families.tokenizer("llama3")
    tokenizer.chat_template = families.TEMPLATES["smollm3"]
    chat = ChatFormat(tokenizer, Dialect.chat, 512)
    encode = partial(tokenizer.encode, add_special_tokens=False)
    thought = encode("<think>Hm,</think> no.</think>\n\nSure.")
    assert len(thought) > 20
    assert chat.closed([*thought, chat.stop_id]) == [*encode("Sure."), chat.stop_id]
    assert chat.closed(encode("Sure.")) == [*encode("Sure."), chat.stop_id]
    assert chat.decode(thought) == "Sure."


def test_every_end_stops_and_one_is_learnt(folder, hardware):
    chat = load(folder, hardware).chat
    ids = chat.tokenizer.convert_tokens_to_ids
    assert chat.stop_ids == {ids("<|eot_id|>"), ids("<|end_of_text|>")}
    assert chat.response("Yes")[-1] == chat.stop_id == ids("<|eot_id|>")
    assert chat.closed([7, ids("<|end_of_text|>")]) == [7, chat.stop_id]
    assert chat.closed([7]) == [7, chat.stop_id]


@torch.no_grad()
def test_one_base_serves_one_after_another(folder, hardware):
    first = load(folder, hardware)
    network, before = first.network, {k: v.clone() for k, v in first.network.state_dict().items()}
    ids = torch.arange(3, 40)[None]
    expected = network(ids).logits
    first.add_adapter("one", 0)
    randomise(first, "one")
    with first.sampling("one"):
        pass
    other = load(folder, hardware)
    assert other.network is not network, "the first one is still in use"
    del first, other
    gc.collect()
    third = load(folder, hardware)
    fourth_network = third.network
    third.add_adapter("two", 0)
    randomise(third, "two")
    del third
    again = load(folder, hardware)
    assert again.network is fourth_network
    after = again.network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert torch.equal(again.network(ids).logits, expected)
    again.add_adapter("one", 0)
    assert len(again.adapter_parameters("one")) == 2 * 14


def test_a_changed_folder_is_loaded_again(folder, hardware):
    network = load(folder, hardware).network
    change_weights(folder, lambda weights: weights[NORM].fill_(2.0))
    again = load(folder, hardware)
    assert again.network is not network
    assert float(again.network.state_dict()[NORM].mean()) == 2.0
