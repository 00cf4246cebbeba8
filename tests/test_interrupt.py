"""Ctrl-C that a library has swallowed is raised again."""

import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from cai import interrupt
from cai.command import command
from cai.errors import UserError
from cai.jsonl import Rows
from cai.sampling.shards import make_rows


@contextmanager
def listening():
    """Listen for a while, and leave signals to whoever had them before."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before, hook = [signal.getsignal(number) for number in numbers], sys.unraisablehook
    interrupt.listen()
    yield
    interrupt.listen()
    for number, handler in zip(numbers, before):
        signal.signal(number, handler)
    sys.unraisablehook = hook


@pytest.fixture
def pressed():
    """Press Ctrl-C where somebody catches it, as imports of some libraries do."""
    with listening():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        yield


def test_it_is_raised_again_until_somebody_leaves(pressed):
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            interrupt.check()
    interrupt.listen()
    interrupt.check()


def test_no_rows_are_made_after_it(pressed, tmp_path):
    def make(part):
        raise AssertionError("work went on")

    with pytest.raises(KeyboardInterrupt):
        make_rows(Rows(tmp_path / "rows.jsonl", dict), 3, 1, make, "rows")


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_sigterm_is_ctrl_c_and_each_has_its_exit_code(number, code, capsys):
    with listening():
        assert command(lambda: signal.raise_signal(number)) == code
    assert "the same command goes on where this one stopped" in capsys.readouterr().err


def test_a_command_ends_with_a_sentence_or_with_its_own_fault(capsys):
    def wrong(error):
        def work():
            raise error

        return command(work)

    with listening():
        assert wrong(UserError("x=1 is wrong: use 2")) == 1
        assert capsys.readouterr().err == "x=1 is wrong: use 2\n"
        assert wrong(BrokenPipeError()) == 141
        assert command(lambda: 0) == 0
        with pytest.raises(ZeroDivisionError):
            wrong(ZeroDivisionError())


def test_a_reader_that_has_gone_ends_the_help_without_noise():
    """The pipe is closed before the command starts, as ``| head`` closes it a moment later."""
    shell = f"{sys.executable} -m cai --help | true"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True)
    assert done.stderr == ""
