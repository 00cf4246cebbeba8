"""The short forms: some random configs, hostile model folders and a lack of memory."""

import math
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
import tiny
import torch
from faults import configs, folders, memory

import cai.__main__ as program
import cai.config
from cai.dialogue import human
from cai.lm.generate import Sampling
from cai.lm.load import load_model
from cai.lm.packing import Tree
from cai.training.sft import mean_loss

FEW = range(0, 21)
"""Three commands that begin with each kind of override."""


@pytest.fixture
def quick(monkeypatch):
    """Compose with files that are read once, and plan nothing."""
    load = configs.FileConfigSource.load_config
    monkeypatch.setattr(configs.FileConfigSource, "load_config", load)
    configs.keep_files()
    monkeypatch.setattr("cai.pipeline.plan.plan", lambda *parts: [])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def ended(number):
    with tempfile.TemporaryDirectory() as folder:
        return configs.outcome(configs.case(number), Path(folder))[0]


def test_random_commands_are_planned_or_refused_in_a_sentence(quick):
    ends = Counter(ended(number) for number in FEW)
    assert set(ends) <= configs.WELL
    assert ends["sentence"] > 5


def test_the_look_out_sees_numbers_that_are_none_and_secrets(quick, monkeypatch, tmp_path):
    """Without the bounds and without the check before Hydra writes."""
    monkeypatch.setattr(cai.config, "check_bounds", lambda config: None)
    monkeypatch.setattr(configs.sweep.Sweep, "on_run_start", lambda *rest, **more: None)
    bad = configs.Case(0, ("number",), ("rl.kl.coefficient=nan",))
    assert configs.outcome(bad, tmp_path)[0] == "number that is none accepted"
    said = f"feedback.endpoint.url='http://h/?k={configs.SECRET}'"
    other = tmp_path / "other"
    other.mkdir()
    assert configs.outcome(configs.Case(0, ("secret",), (said,)), other)[0] == "secret written"


def test_an_unknown_flag_is_said_without_the_words_behind_it(quick, tmp_path):
    words = ("--nope=3", f"judge.endpoint.url=http://h/?k={configs.SECRET}")
    end, said = configs.outcome(configs.Case(0, ("junk",), words), tmp_path)
    assert end == "exit 2"
    assert said == "--nope is no flag: python -m cai --help lists them\n"


def test_all_flags_of_hydra_are_known(monkeypatch):
    """They are written down, for Hydra shows its parser to nobody; here we look all the same."""
    from hydra._internal.utils import get_args_parser

    flags = [flag for action in get_args_parser()._actions for flag in action.option_strings]
    assert len(flags) > 15
    for word in (*flags, "--multi", "--config-name=x", "-cnx", "stage=rl", "~trainer"):
        monkeypatch.setattr(sys, "argv", ["cai", word])
        assert program._unknown_flag() is None, word
    for word in ("--no", "-x", "-", "--", "--config-nam-e"):
        monkeypatch.setattr(sys, "argv", ["cai", "stage=rl", word])
        assert program._unknown_flag() == word


def test_a_run_folder_that_can_not_be_made_is_said_once(quick, monkeypatch, tmp_path, recwarn):
    def closed(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(configs.sweep, "claim", closed)
    end, said = configs.outcome(configs.Case(0, ("text",), ()), tmp_path)
    assert end == "sentence"
    assert said.count("can't be written to (Permission denied") == 1
    assert not [warning for warning in recwarn if "Callback" in str(warning.message)]


@pytest.mark.parametrize("key", ["outputs", "hydra.run.dir"])
@pytest.mark.parametrize("below", ["", "/a/b"])
def test_a_folder_below_a_file_is_said_in_a_sentence(key, below, quick, tmp_path):
    (tmp_path / "file").write_text("")
    word = f"{key}={tmp_path / 'file'}{below}"
    end, said = configs.outcome(configs.Case(0, ("text",), (word,)), tmp_path)
    assert end == "sentence"
    assert said.startswith(f"{word} can't be written to (")
    assert said.endswith(f"): set {key}= to a folder that you may write\n")


def test_a_missing_run_folder_is_said_in_a_sentence(quick, tmp_path):
    end, said = configs.outcome(configs.Case(0, ("text",), ("hydra.run.dir=???",)), tmp_path)
    assert end == "sentence"
    assert said == "hydra.run.dir names no folder: leave it out, or set it to one\n"


SOME = [
    "auto_map of config, model", "template escapes 1", "kernel repository", "pickle: pytorch_model",
    "pickle: in the name", "config is a pipe", "weights are an endless", "shards outside",
    "header of 2^63", "weights: NaN", "10^9 layers", "heads that do not divide", "config: deep",
    "a negative id", "template: calls itself", "template: swells step", "ends are texts",
    "a pattern that explodes",
]  # fmt: skip


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = folders.sound(tmp_path_factory.mktemp("sound") / "model")
    folders.use(path)
    return path


@pytest.mark.parametrize("word", SOME)
def test_a_hostile_folder_runs_no_code_and_is_refused_in_a_sentence(good, tmp_path, word):
    for n, (_, _, change) in enumerate(folders.chosen(word)):
        folder = tmp_path / str(n)
        folder.mkdir()
        end, said = folders.outcome(change, good, folder)
        assert end in folders.WELL, said
        assert "\n" not in said


def test_the_look_out_sees_code_that_runs_and_faults(good, tmp_path, monkeypatch):
    ends = []
    for n, work in enumerate((lambda path: (path.parent / "code-has-run").touch(), math.sqrt)):
        monkeypatch.setattr(folders, "use", work)
        folder = tmp_path / str(n)
        folder.mkdir()
        ends.append(folders.outcome(lambda _: None, good, folder)[0])
    assert ends == ["CODE RAN", "traceback"]


def test_too_little_memory_says_which_key_to_lower():
    """A real limit, and a network that wants more than there is."""
    model = load_model(tiny.tiny_config(), tiny.tiny_hardware())
    model.add_adapter("a", 1)
    prompt = model.chat.prompt((human("a question"),))

    def starve():
        layer = model.network.get_input_embeddings()
        layer.register_forward_pre_hook(lambda *_: torch.empty(1 << 32))

    def sample():
        starve()
        model.sampler.generate(None, [prompt], [1], Sampling(4))

    def learn():
        starve()
        with model.use("a"):
            mean_loss(model, [Tree(prompt, [[5, 6]])], 99)

    assert "lower hardware.sample_rows" in memory.starved(sample)
    assert "lower hardware.micro_tokens" in memory.starved(learn)
    assert memory.starved(lambda: torch.ones(3)) is None


@pytest.mark.parametrize("mib", [500, 1000])
def test_too_little_room_for_the_libraries_is_said_before_they_are_loaded(tmp_path, mib):
    """Half way through, they abort, or end in an error that has no words."""
    code, said = memory.run(tmp_path, mib << 20)
    assert memory.judged(code, said) == "sentence"
    assert f"ulimit -v leaves {mib} MiB of address space" in said
