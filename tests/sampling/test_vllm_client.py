"""The client of vLLM against a server that answers with the local model: ids, adapters, faults."""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from tiny import randomise, tiny_config, tiny_hardware, tiny_trainer

from cai.composition import CONF, typed
from cai.config import Engine, SamplerConfig
from cai.dialogue import human
from cai.errors import UserError
from cai.lm.generate import Sampling
from cai.lm.load import load_copy
from cai.lm.packing import Tree
from cai.lm.sampler import LocalSampler
from cai.lm.score import token_logprobs
from cai.pipeline.stage import Job
from cai.sampling.replies import sample_replies
from cai.sampling.speaker import load_speaker
from cai.sampling.vllm import VLLMSampler
from cai.sampling.vllm_client import VLLMClient
from cai.tracking import Tracker


class Engineered:
    """What vLLM's server does, as far as the client asks, with a model of ours behind it."""

    def __init__(self, model):
        self.model, self.adapters, self.asked = model, {}, []
        self.runtime, self.context, self.lock = True, 2048, threading.Lock()
        self.of_one = False

    def answer(self, path, body):
        with self.lock:
            self.asked.append((path, body))
            if path == "/v1/models":
                base = {"id": "base", "parent": None, "max_model_len": self.context}
                return 200, {"data": [base, *({"id": n, "parent": "base"} for n in self.adapters)]}
            if path == "/version":
                return 200, {"version": "0.0"}
            if path == "/v1/completions":
                return self.complete(body)
            if not self.runtime:
                return 404, {"detail": "Not Found"}
            if path == "/v1/unload_lora_adapter":
                return 200, self.adapters.pop(body["lora_name"]) and "Success"
            folder = Path(body["lora_path"])
            if not (folder / "adapter_config.json").is_file():
                return 404, {"error": {"message": f"No adapter found for {folder}"}}
            name = f"served_{len(self.asked)}"
            self.model.add_adapter(name, 0, folder)
            self.adapters[body["lora_name"]] = name
            return 200, "Success"

    def raw(self, adapter, ids, said):
        """Give the log-probabilities that the tokens have at temperature 1."""
        with self.model.sampling(adapter) as network:
            [[found]] = token_logprobs(network, [Tree(ids, [said.tokens])], 1000)
        return found.tolist()

    def complete(self, body):
        if body["model"] not in {"base", *self.adapters}:
            return 404, {"error": {"message": f"The model `{body['model']}` does not exist."}}
        adapter, ids = self.adapters.get(body["model"]), body["prompt"]
        if "logprob_token_ids" in body:
            options = [[token] for token in body["logprob_token_ids"]]
            [read] = LocalSampler(self.model).option_logprobs(adapter, [ids], options)
            listed = {f"token_id:{t}": p for [t], p in zip(options, read.tolist())}
            return 200, {"choices": [{"logprobs": {"top_logprobs": [listed]}}]}
        sampling = Sampling(body["max_tokens"], body["min_tokens"], body["temperature"])
        local = LocalSampler(self.model)
        [said] = local.generate(adapter, [ids], [body["seed"]], sampling)
        said = said._replace(logprobs=self.raw(adapter, ids, said)) if self.of_one else said
        logprobs = {"token_logprobs": said.logprobs}
        return 200, {"choices": [{"token_ids": said.tokens, "logprobs": logprobs}]}


@pytest.fixture
def engine(hardware):
    return Engineered(load_copy(tiny_config(), hardware))


@pytest.fixture
def url(engine):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.reply(None)

        def do_POST(self):
            self.reply(json.loads(self.rfile.read(int(self.headers["content-length"]))))

        def reply(self, body):
            status, said = engine.answer(self.path, body)
            text = said.encode() if isinstance(said, str) else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def config(**changes):
    values = {"engine": Engine.vllm, "url": None, "python": None, "arguments": [],
              "adapters": None, "requests": 4, "timeout": 60.0}  # fmt: skip
    return SamplerConfig(**{**values, **changes})


@pytest.fixture
def model(hardware, url):
    model = load_copy(tiny_config(), hardware)
    chosen = config(url=url)
    model.sampler = VLLMSampler(model, chosen, VLLMClient(url, 4, 60))
    for name in ("one", "other"):
        model.add_adapter(name, 0)
        randomise(model, name, seed=len(name))
    return model


TALKS = [(human(f"Say {n} words"),) for n in ("three", "some", "no more than seven")]
SAMPLING = Sampling(12, min_new_tokens=3, temperature=0.8)


@pytest.mark.parametrize("adapter", [None, "one", "other"])
def test_what_is_asked_is_what_the_local_sampler_does(model, adapter):
    prompts = [model.chat.prompt(talk) for talk in TALKS]
    seeds = [5, 2**31 + 6, 7]
    theirs = model.sampler.generate(adapter, prompts, seeds, SAMPLING)
    ours = LocalSampler(model).generate(adapter, prompts, [5, 6, 7], SAMPLING)
    for one, reply in zip(ours, theirs, strict=True):
        assert reply.tokens == one.tokens
        assert reply.finished == one.finished
        assert reply.logprobs == pytest.approx(one.logprobs, abs=1e-4)
    options = model.chat.options([" (A)", " (B)", " neither"])
    asked = (prompts, options)
    read = model.sampler.option_logprobs(adapter, *asked)
    torch.testing.assert_close(
        read, LocalSampler(model).option_logprobs(adapter, *asked), atol=1e-4, rtol=1e-4
    )


def test_only_the_temperature_shapes_what_is_sampled(model, engine):
    model.sampler.generate(None, [model.chat.prompt(TALKS[0])], [1], SAMPLING)
    body = engine.asked[-1][1]
    assert body["stop_token_ids"] == sorted(model.stop_ids)
    neutral = {"top_p": 1, "top_k": 0, "min_p": 0, "repetition_penalty": 1,
               "presence_penalty": 0, "frequency_penalty": 0}  # fmt: skip
    assert {key: body[key] for key in neutral} == neutral


def test_every_version_of_an_adapter_has_a_name_and_the_last_one_goes(model, engine):
    def speak(adapter):
        sample_replies(model, adapter, TALKS, [1, 2, 3], SAMPLING)
        return set(engine.adapters)

    [first] = speak("one")
    assert speak("one") == {first}
    other = speak("other") - {first}
    randomise(model, "one", seed=9)
    second = speak("one")
    assert first not in second
    assert len(second) == 2
    assert other < second
    model.sampler = LocalSampler(model)  # which lets the other go
    assert not engine.adapters


def job(tmp_path, chosen, **hardware):
    tracker = Tracker("revise", tmp_path)
    return Job(tiny_hardware(**hardware), tiny_trainer(), tracker, chosen)


def test_the_result_says_who_sampled(tmp_path, url):
    mine = job(tmp_path, config(url=f"{url}/v1/"))
    model = load_speaker(tiny_config(), mine)
    assert isinstance(model.sampler, VLLMSampler)
    assert mine.facts == {"sampler": "vllm 0.0"}
    here = job(tmp_path, config(engine=Engine.local))
    assert isinstance(load_speaker(tiny_config(), here).sampler, LocalSampler)
    assert here.facts == {"sampler": "local"}


def test_a_server_that_is_down(tmp_path):
    with pytest.raises(UserError, match=r"no vLLM server answers at http://127\.0\.0\.1:9 "):
        load_speaker(tiny_config(), job(tmp_path, config(url="http://127.0.0.1:9")))


def test_a_server_that_speaks_of_temperature_one(monkeypatch, tmp_path, url, engine):
    monkeypatch.setattr("cai.sampling.vllm.TOLERANCE", 1e-3)  # the tiny model is sure of nothing
    engine.of_one = True
    with pytest.raises(UserError, match="--logprobs-mode=processed_logprobs"):
        load_speaker(tiny_config(), job(tmp_path, config(url=url)))


def test_a_server_with_another_model(tmp_path, url, engine):
    with torch.no_grad():
        for weight in engine.model.network.base_model.parameters():
            weight.mul_(2)
    with pytest.raises(UserError, match="serves another model than model=tiny"):
        load_speaker(tiny_config(), job(tmp_path, config(url=url)))


def test_a_server_with_less_room(tmp_path, url, engine):
    engine.context = 1024
    with pytest.raises(UserError, match=r"takes 1024 tokens and model\.context is 2048"):
        load_speaker(tiny_config(), job(tmp_path, config(url=url)))


def test_a_server_that_loads_no_adapters(model, engine):
    engine.runtime = False
    with pytest.raises(UserError, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 in its environment"):
        sample_replies(model, "one", TALKS, [1, 2, 3], SAMPLING)


def test_a_server_that_does_not_see_the_folder(model, engine, tmp_path):
    client = model.sampler._client
    with pytest.raises(UserError, match=r"No adapter found for .*sampler\.adapters"):
        client.load_adapter("one", tmp_path / "nowhere")


def test_a_server_that_fails_while_it_samples(model, engine, monkeypatch):
    refusal = (500, {"error": {"message": "EngineCore encountered an issue."}})
    monkeypatch.setattr(engine, "complete", lambda body: refusal)
    with pytest.raises(UserError, match=r"does not answer a prompt \(EngineCore .* issue\): see"):
        model.sampler.generate(None, [[5, 6]], [1], SAMPLING)


def test_an_interpreter_that_is_none(tmp_path):
    with pytest.raises(UserError, match=r"sampler\.python=/no/python is no program"):
        load_speaker(tiny_config(), job(tmp_path, config(python="/no/python")))


def test_an_interpreter_without_vllm(tmp_path):
    with pytest.raises(UserError, match=r"has no vLLM: install it there with pip install vllm"):
        load_speaker(tiny_config(), job(tmp_path, config(python=sys.executable)))


def test_one_server_of_ones_own_for_one_process(tmp_path):
    with pytest.raises(UserError, match=r"give sampler\.url"):
        load_speaker(tiny_config(), job(tmp_path, config(python="/no/python"), devices=2))


def composed(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return typed(compose("config", overrides=["tracking=off", *overrides]))


def test_keys_in_conf():
    assert composed().sampler.engine is Engine.local
    assert composed("sampler=vllm", "sampler.url=http://a:1").sampler.url == "http://a:1"
    with pytest.raises(UserError, match="sampler=vllm needs one server"):
        composed("sampler=vllm")
    with pytest.raises(UserError, match="sampler=vllm needs one server"):
        composed("sampler=vllm", "sampler.url=http://a:1", "sampler.python=python")


class Hostile(BaseHTTPRequestHandler):
    """Answers with whatever the test says, part by part."""

    parts = ()

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        for part in self.parts:
            try:
                self.wfile.write(part)
            except OSError:  # the client has gone
                return
            time.sleep(0.1)

    def log_message(self, *rest):
        pass


@pytest.mark.parametrize(
    "parts, said",
    [
        ([b" "] * 100, "gave no answer in time: raise sampler.timeout"),
        ([b"[" * 100_000], "is no vLLM server"),
        ([b"{nope"], "is no vLLM server"),
        ([b'{"data": 3}'], "is no vLLM server"),
    ],
)
def test_what_is_no_server_of_vllm_is_said_in_time(parts, said):
    handler = type("Handler", (Hostile,), {"parts": parts})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        started = time.monotonic()
        with pytest.raises(UserError, match=said):
            VLLMClient(f"http://127.0.0.1:{server.server_port}", 1, 0.5)
        assert time.monotonic() - started < 8
        server.shutdown()
