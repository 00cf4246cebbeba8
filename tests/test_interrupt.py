"""Ctrl-C that a library has swallowed is raised again."""

import signal
import sys

import pytest

from cai import interrupt
from cai.jsonl import Rows
from cai.sampling.shards import make_rows


@pytest.fixture
def pressed():
    """Press Ctrl-C where somebody catches it, as imports of some libraries do."""
    handler, hook = signal.getsignal(signal.SIGINT), sys.unraisablehook
    interrupt.listen()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    yield
    interrupt.listen()
    signal.signal(signal.SIGINT, handler)
    sys.unraisablehook = hook


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
