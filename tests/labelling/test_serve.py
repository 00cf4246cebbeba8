"""Votes from `transformers serve`, a server of another project, agree with the model's numbers."""

import os
import random
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
import torch
from chat_server import endpoint_config

from cai.constitution.prompts import ANSWER_OPENING, Question, as_request
from cai.dialogue import human, to_messages
from cai.labelling.endpoint import Endpoint
from cai.labelling.remote import ChoiceReader
from cai.lm.score import option_logprobs
from cai.lm.tiny import tiny_model, tiny_tokenizer

CUE = "\n\nAnswer with (A) or (B) only. The answer is:<|im_end|>\n<|im_start|>assistant\n"
ASKED = human("Which is kinder?\nOptions:\n (A) [[[x]]]\n (B) [[[y]]]")
TALK = as_request(Question((ASKED,), ANSWER_OPENING))


def opinionated_model():
    """Teach a tiny model to answer (A) seven times in ten."""
    draws, tokenizer = random.Random(0), tiny_tokenizer()
    model = tiny_model(1024)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(120):
        texts = [
            "".join(chr(draws.randint(97, 122)) for _ in range(12))
            + CUE
            + ("(A)" if draws.random() < 0.7 else "(B)")
            + "<|im_end|>"
            for _ in range(16)
        ]
        ids = torch.tensor([tokenizer(text, add_special_tokens=False).input_ids for text in texts])
        labels = ids.clone()
        labels[:, :-4] = -100
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.generation_config.do_sample = True
    return model.eval(), tokenizer


@pytest.fixture
def served(tmp_path):
    for package in ("fastapi", "uvicorn", "openai"):
        pytest.importorskip(package, reason="pip install 'transformers[serving]' to run this")
    model, tokenizer = opinionated_model()
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder)]
    command += ["--port", str(port), "--host", "127.0.0.1", "--device", "cpu"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}", folder, model, tokenizer
    finally:
        process.terminate()
        process.wait(10)


def wait_for(url, process):
    for _ in range(120):
        assert process.poll() is None, "the server ended by itself"
        try:
            urllib.request.urlopen(url, timeout=1).close()
        except OSError:
            time.sleep(0.5)
        else:
            return
    pytest.fail("the server did not start")


def test_votes_of_a_real_server_are_the_models_probability(served, tmp_path):
    url, folder, model, tokenizer = served
    settings = endpoint_config(url, model=str(folder), timeout=60.0)
    reader = ChoiceReader(Endpoint(settings, tmp_path / "cache"), 200, 0)
    assert not reader.exact
    [answer] = reader.read([TALK])
    text = tokenizer.apply_chat_template(
        to_messages(TALK), tokenize=False, add_generation_prompt=True
    )
    ids = [tokenizer(part, add_special_tokens=False).input_ids for part in (text, "(A)", "(B)")]
    expected = option_logprobs(model, ids[:1], ids[1:], 4096).softmax(-1)[0, 0].item()
    assert 0.5 < expected < 0.9
    # Three standard deviations of 200 votes are 3 sqrt(.7 * .3 / 200) = .1.
    assert answer.probabilities == [pytest.approx(expected, abs=0.1)]
