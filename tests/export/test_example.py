"""The example with other people's programs: transformers, a real vLLM server, TRL.

CAI_TEST_VLLM is the interpreter of an environment with vLLM.
"""

import importlib.util
import os
import subprocess
from pathlib import Path

import pytest
from export.finished import ASKED, finish
from transformers import LlamaConfig

from cai.composition import CONF
from cai.export.__main__ import main

EXAMPLE = CONF.parent / "examples" / "taken_away.py"
VLLM = os.environ.get("CAI_TEST_VLLM", "")
OURS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
QUESTION = ASKED[0].text


@pytest.fixture(scope="module")
def example():
    made = importlib.util.spec_from_file_location("taken_away", EXAMPLE)
    module = importlib.util.module_from_spec(made)
    made.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return finish(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def model(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("taken") / "rl_cai"
    assert main([str(run), "--system", "rl_cai", "--to", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A model with heads of 32, for on a processor vLLM knows none that are smaller."""

    def wider(**about):
        return LlamaConfig(**{**about, "hidden_size": 128})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cai.lm.tiny.LlamaConfig", wider)
        run = finish(tmp_path_factory.mktemp("run"), stage="helpful")
        folder = tmp_path_factory.mktemp("taken") / "helpful"
        assert main([str(run), "--system", "helpful", "--to", str(folder)]) == 0
    return folder


def test_it_imports_nothing_of_the_project():
    assert "import cai" not in EXAMPLE.read_text()
    assert "from cai" not in EXAMPLE.read_text()


@pytest.mark.timeout(60)
def test_a_server_takes_its_workers_with_it(example):
    words = ["sh", "-c", "sleep 300 & echo up; wait"]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True)
    assert server.stdout.readline() == b"up\n"
    example._end(server)
    assert server.stdout.read() == b"", "nobody holds it any more"


@pytest.mark.skipif(
    not Path(VLLM).is_file(), reason="no vLLM: set CAI_TEST_VLLM to its interpreter"
)
@pytest.mark.timeout(1800)
def test_vllm_serves_the_folder_and_says_what_transformers_says(example, wide):
    """Chat template, stop tokens and weights are all in the folder."""
    environment = {key: value for key, value in os.environ.items() if key not in OURS}
    environment["PATH"] = f"{Path(VLLM).parent}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        [VLLM, EXAMPLE, "serve", wide, QUESTION],
        env=environment, cwd=wide.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    # vLLM keeps back the last letter where not all of its bytes have come.
    said, expected = done.stdout.removesuffix("\n"), example.ask(wide, QUESTION)
    assert said.rstrip("\ufffd") == expected.rstrip("\ufffd") != ""


def test_trl_trains_on_the_labels(example, run, model, tmp_path):
    pytest.importorskip("trl", reason="no TRL: pip install trl")
    assert main([str(run), "--data", "--to", str(tmp_path / "data")]) == 0
    found = example.train(tmp_path / "data", model, tmp_path / "rm", 2)
    assert found["eval_loss"] > 0
