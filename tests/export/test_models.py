"""A model that was taken away says and scores elsewhere what it does here."""

import re
from dataclasses import replace

import pytest
import torch
from export.finished import ASKED, BETTER, MEAN, finish, result_of
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file
from tiny import tiny_config, tiny_hardware
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
)

from cai.config import ModelSource, Quantization
from cai.dialogue import to_messages
from cai.errors import UserError
from cai.export.__main__ import main
from cai.export.lineage import trace
from cai.export.loading import loading
from cai.export.models import Form, write_model
from cai.export.systems import find_system
from cai.files import read_json, write_json
from cai.lm.generate import Sampling
from cai.lm.heads import ScalarHead, ScalarModel, own_network
from cai.lm.load import load_model, load_unweighted
from cai.lm.sampler import LocalSampler
from cai.lm.whole import save_whole
from cai.pipeline.stage import RECORD, Result
from cai.pipeline.store import checksums
from cai.scorer import load_scorer


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return finish(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def take(run, tmp_path_factory):
    """Take a system away; once in each form."""
    made = {}

    def taken(system, *options):
        if (system, options) not in made:
            folder = tmp_path_factory.mktemp("taken") / "it"
            assert main([str(run), "--system", system, "--to", str(folder), *options]) == 0
            made[system, options] = folder
        return made[system, options]

    return taken


def ours(run, stage):
    """The model as the project itself loads it."""
    model = load_model(tiny_config(), tiny_hardware())
    model.add_adapter("ours", 0, result_of(run, stage) / "model")
    return model


def code_of(folder, **given):
    """Run the code of a card; return what it defined."""
    [code] = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    found = {"THIS_FOLDER": str(folder), "PROMPT": ASKED[0].text, "REPLY": BETTER, **given}
    exec(code, found)
    return found


def greedy(model, tokenizer, n=12):
    inputs = tokenizer.apply_chat_template(
        to_messages(ASKED), add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    ids = model.generate(**inputs, max_new_tokens=n, do_sample=False)
    return ids[0, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize(
    "system, stage", [("helpful", "helpful"), ("sl_cai", "sft"), ("rl_cai", "rl")]
)
@torch.no_grad()
def test_merged_adapter_and_ours_have_the_same_logits(run, take, system, stage):
    model = ours(run, stage)
    ids = torch.tensor([model.chat.prompt(ASKED)])
    with model.use("ours") as network:
        expected = network(input_ids=ids).logits
    with model.use(None) as network:
        bare = network(input_ids=ids).logits
    merged = AutoModelForCausalLM.from_pretrained(take(system)).eval()
    assert merged.dtype == torch.float32
    adapter = AutoPeftModelForCausalLM.from_pretrained(take(system, "--adapter")).eval()
    for theirs in (merged(ids).logits, adapter(input_ids=ids).logits):
        torch.testing.assert_close(theirs, expected, atol=1e-4, rtol=0)
    assert float((bare - expected).abs().max()) > 0.5, "an adapter that matters"


@pytest.mark.parametrize("form", ["--merged", "--adapter"])
def test_greedy_replies_are_the_same_as_the_card_loads_it(run, take, form):
    found = code_of(take("rl_cai", form))
    assert isinstance(found["reply"], str)
    model = ours(run, "rl")
    sampler, sampling = LocalSampler(model), Sampling(12, 0, 0.0)
    [row] = sampler.generate("ours", [model.chat.prompt(ASKED)], [0], sampling)
    assert greedy(found["model"], found["tokenizer"]) == row.tokens


def test_what_ends_a_reply_and_how_it_is_sampled_go_with_it(run, take):
    model = ours(run, "rl")
    for form in ("--merged", "--adapter"):
        read = GenerationConfig.from_pretrained(take("rl_cai", form))
        assert read.eos_token_id == sorted(model.stop_ids)
        assert (read.do_sample, read.temperature) == (True, model.config.temperature)
        assert (read.top_k, read.top_p) == (0, 1.0), "no token is left out"
        tokenizer = AutoTokenizer.from_pretrained(take("rl_cai", form))
        ids = tokenizer.apply_chat_template(
            to_messages(ASKED), add_generation_prompt=True, return_dict=False
        )
        assert ids == model.chat.prompt(ASKED)


def test_bf16_is_the_sum_rounded_once(take, run, tmp_path):
    assert main([str(run), "--system", "sl_cai", "--to", str(tmp_path / "b"), "--dtype=bf16"]) == 0
    exact = load_file(take("sl_cai") / "model.safetensors")
    rounded = load_file(tmp_path / "b" / "model.safetensors")
    assert exact.keys() == rounded.keys()
    assert all(torch.equal(exact[key].bfloat16(), rounded[key]) for key in exact)


def test_a_snapshot_is_itself(run, take):
    now, then = (load_file(take(n) / "model.safetensors") for n in ("rl_cai", "rl_cai@5"))
    assert any(not torch.equal(now[key], then[key]) for key in now)
    assert "at iteration 5" in (take("rl_cai@5") / "README.md").read_text()


@pytest.mark.parametrize("form", ["--merged", "--adapter"])
@torch.no_grad()
def test_a_preference_model_scores_in_plain_transformers_as_here(run, take, form):
    """As its card says, alone and in a padded batch."""
    scorer = load_scorer(result_of(run, "pm") / "twin", "cpu")
    replies = [BETTER, "No.", "Break a window with a stone, and climb in."]
    trees = [scorer.tree({"prompt": ASKED[0].text, "response": reply}) for reply in replies]
    expected = scorer.reward.score(trees, 4096).tolist()
    assert max(expected) - min(expected) > 0.1
    for reply, score in zip(replies, expected):
        assert code_of(take("twin", form), REPLY=reply)["score"] == pytest.approx(score, abs=1e-4)
    found = code_of(take("twin", form))
    rows = [[*tree.prompt, *tree.responses[0]] for tree in trees]
    batch = found["tokenizer"].pad({"input_ids": rows}, return_tensors="pt")
    together = (found["model"](**batch).logits.squeeze(-1) - MEAN).tolist()
    assert together == pytest.approx(expected, abs=1e-4)


def test_a_merged_preference_model_is_one_label_and_needs_no_peft(take):
    plain = AutoModelForSequenceClassification.from_pretrained(take("pm"))
    assert plain.config.num_labels == 1
    other = AutoModelForSequenceClassification.from_pretrained(take("pm-1"))
    assert not torch.equal(plain.score.weight, other.score.weight), "members are told apart"


def test_an_adapter_names_a_base_that_is_there(take):
    folder = take("sl_cai", "--adapter")
    assert read_json(folder / "adapter_config.json")["base_model_name_or_path"] == str(
        folder / "base"
    )


def in_a_folder(run, tmp_path, **changes):
    """The policy as if its base were one of a folder."""
    base = load_model(tiny_config(), tiny_hardware())
    base.network.save_pretrained(tmp_path / "base")
    base.chat.tokenizer.save_pretrained(tmp_path / "base")
    GenerationConfig(eos_token_id=[2, 40]).save_pretrained(tmp_path / "base")
    system = find_system(trace(run), "rl_cai")
    config = tiny_config(source=ModelSource.folder, path=str(tmp_path / "base"), **changes)
    return replace(system, base=config)


def test_an_adapter_on_a_local_base_names_its_folder(run, tmp_path):
    system = in_a_folder(run, tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    write_model(system, Form(merged=False), tiny_hardware(), out, out)
    assert read_json(out / "adapter_config.json")["base_model_name_or_path"] == system.base.path
    assert not (out / "base").exists()
    assert GenerationConfig.from_pretrained(out).eos_token_id == [2, 40], "of the base, too"


def test_an_adapter_on_a_base_of_a_hub_names_the_commit(run, tmp_path, monkeypatch):
    system = in_a_folder(run, tmp_path)
    described = load_unweighted(system.base, tiny_hardware())
    monkeypatch.setattr("cai.export.models.load_unweighted", lambda *_: described)
    base = replace(system.base, source=ModelSource.hub, path="someone/model", revision="abc123")
    out = tmp_path / "out"
    out.mkdir()
    write_model(replace(system, base=base), Form(merged=False), tiny_hardware(), out, out)
    config = read_json(out / "adapter_config.json")
    assert (config["base_model_name_or_path"], config["revision"]) == ("someone/model", "abc123")


@pytest.mark.parametrize("kind", [Quantization.nf4, Quantization.int8])
def test_merging_into_a_quantised_base_is_refused(run, tmp_path, kind):
    system = in_a_folder(run, tmp_path, quantization=kind)
    with pytest.raises(UserError, match=f"{kind.value}.*rounded weights.*use --adapter"):
        write_model(system, Form(merged=True), tiny_hardware(), tmp_path, tmp_path)


def test_an_adapter_on_a_quantised_base_says_how_it_is_loaded(run, tmp_path):
    system = in_a_folder(run, tmp_path, quantization=Quantization.nf4)
    code = loading(system, Form(merged=False))
    compile(re.findall(r"```python\n(.*?)```", code, re.DOTALL)[0], "card", "exec")
    assert "BitsAndBytesConfig(load_in_4bit=True" in code


def whole(run, tmp_path, name="policy"):
    """A policy of which all weights were trained."""
    model = load_model(tiny_config(), tiny_hardware())
    weights = model.add_whole("all") or model.whole("all")
    for weight in weights.values():
        weight.data += 0.01
    save_whole(model.network, model.chat.tokenizer, weights, tmp_path / name)
    made = Result("rl", "0", tmp_path)
    write_json(tmp_path / RECORD, {"files": checksums(tmp_path)})
    return replace(find_system(trace(run), "rl_cai"), result=made, folder=tmp_path / name)


def test_all_weights_go_as_they_are(run, tmp_path):
    system = whole(run, tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    write_model(system, Form(merged=True), tiny_hardware(), out, out)
    saved = load_file(system.folder / "model.safetensors")
    taken = load_file(out / "model.safetensors")
    assert saved.keys() == taken.keys()
    assert all(torch.equal(saved[key], taken[key]) for key in saved)
    with pytest.raises(UserError, match=r"all its weights trained.*use --merged"):
        write_model(system, Form(merged=False), tiny_hardware(), out, out)


def test_a_preference_model_of_all_weights_goes_as_it_is(run, tmp_path):
    model = own_network(tiny_config(), tiny_hardware())
    head = ScalarHead(model.hidden_size, 1)
    ScalarModel(model, None, head).save(tmp_path / "pm")
    write_json(tmp_path / RECORD, {"files": checksums(tmp_path)})
    system = replace(
        find_system(trace(run), "pm"), result=Result("pm", "0", tmp_path), folder=tmp_path / "pm"
    )
    out = tmp_path / "out"
    out.mkdir()
    write_model(system, Form(merged=True), tiny_hardware(), out, out)
    saved, taken = (load_file(f / "model.safetensors") for f in (tmp_path / "pm", out))
    assert saved.keys() == taken.keys()
    assert all(torch.equal(saved[key], taken[key]) for key in saved)


def test_a_bare_base_has_no_adapter(run, tmp_path):
    system = replace(find_system(trace(run), "helpful"), folder=tmp_path)
    with pytest.raises(UserError, match="helpful is the bare base"):
        write_model(system, Form(merged=False), tiny_hardware(), tmp_path, tmp_path)
