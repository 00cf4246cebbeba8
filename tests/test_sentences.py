"""Errors of memory and disk become one sentence; faults of the program stay what they are."""

import errno
import os
from pathlib import Path

import pytest
import torch

from cai.errors import UserError
from cai.lm.embedded import cache_folder
from cai.sentences import sentence_of

NO_MEMORY = [
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
    RuntimeError("can't start new thread"),
    ImportError("libtorch.so: failed to map segment from shared object"),
    RuntimeError("std::bad_alloc"),
]


@pytest.mark.parametrize("error", NO_MEMORY, ids=repr)
def test_memory_that_runs_out_says_what_to_do(error):
    said = sentence_of(error)
    assert said.startswith("there is not enough memory: ")
    assert "\n" not in said
    try:
        raise ValueError("while it was handled") from error
    except ValueError as outer:
        assert sentence_of(outer) == said


PLACES = {
    "cai/training/sft.py": "lower hardware.micro_tokens",
    "cai/lm/score.py": "lower hardware.micro_tokens",
    "cai/lm/generate.py": "lower hardware.sample_rows",
    "cai/lm/pretrained.py": "use a smaller model",
    "cai/run.py": "give this process more",
}


@pytest.mark.parametrize("file", PLACES)
def test_the_place_where_it_ran_out_says_which_key_to_lower(file):
    code = compile("def work():\n    raise MemoryError", f"/somewhere/{file}", "exec")
    names = {}
    exec(code, names)
    with pytest.raises(MemoryError) as caught:
        names["work"]()
    assert PLACES[file] in sentence_of(caught.value)


class SafetensorError(Exception):
    """As the library's own, which is no OSError."""


FULL = [
    OSError(errno.ENOSPC, "No space left on device", "/out/a"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    SafetensorError("I/O error: No space left on device (os error 28)"),
]


@pytest.mark.parametrize("error", FULL, ids=repr)
def test_a_full_disk_says_that_the_same_command_goes_on(error):
    said = sentence_of(error)
    assert said.startswith("the disk is full (")
    assert "goes on where this one stopped" in said


def test_what_may_not_be_read_or_written_is_named():
    said = sentence_of(PermissionError(errno.EACCES, "Permission denied", "/o/\x1b[31mx"))
    assert said.startswith("/o/x can't be read or written (Permission denied)")
    assert sentence_of(OSError(errno.EFBIG, "File too large", "/o/x")).startswith("/o/x grew")


@pytest.mark.parametrize(
    "error", [KeyError("x"), RuntimeError("a bug"), OSError(errno.EIO, "x"), SafetensorError("bad")]
)
def test_faults_of_the_program_keep_their_tracebacks(error):
    assert sentence_of(error) is None


def test_a_mistake_speaks_for_itself():
    assert sentence_of(UserError("x=1 is wrong: use 2")) == "x=1 is wrong: use 2"


def test_who_has_no_home_is_told_to_give_a_cache(monkeypatch):
    for name in ("CAI_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_folder() == Path.home() / ".cache" / "cai"

    def nobody():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    with pytest.raises(UserError, match="set the environment variable CAI_CACHE"):
        cache_folder()
    monkeypatch.setenv("CAI_CACHE", "/somewhere")
    assert cache_folder() == Path("/somewhere")


def test_layers_that_can_not_be_compiled_say_which_key_to_change():
    def broken(graph, inputs):
        raise RuntimeError("No working C++ compiler found\nin /nowhere")

    class Layer(torch.nn.Module):
        def forward(self, x):
            return x * 2

    layer = Layer()
    layer.compile(backend=broken)
    with pytest.raises(RuntimeError) as found:
        layer(torch.ones(1, 2))
    said = sentence_of(found.value)
    assert "No working C++ compiler found" in said
    assert "set hardware.compile=false" in said
    assert "\n" not in said
    assert sentence_of(RuntimeError("No working C++ compiler found")) is None
