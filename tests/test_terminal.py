"""Foreign text loses what a terminal would obey and keeps what a person would read."""

import itertools
import logging
import sys
import time

import pytest

from cai.terminal import PlainFormatter, one_line, plain, readable, say

SHOWN = {
    "plain words": "plain words",
    "two\nlines\r\nand\ta tab": "two lines and a tab",
    "\x1b[31mred\x1b[0m": "red",
    "\x9b2Jcleared": "cleared",
    "\x1b]0;title\x07text": "text",
    "\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\": "link",
    "\x1b]52;c;c2VjcmV0\x07copied": "copied",
    "\x1bPq#0\x1b\\picture": "picture",
    "\x1b(0lines\x1bc": "lines",
    "\x1b]0;never ended": "0;never ended",
    "\x1b\x1b[[31mnested": "31mnested",
    "bell\x07 back\x08space \x00nul \x7fdel": "bell backspace nul del",
    "turned \u202egnp.exe": "turned gnp.exe",
    "zero\u200bwidth\ufeff": "zerowidth",
    "line\u2028end\u2029": "line end",
    "lone \ud800 half": "lone half",
    "Grüße, 你好, \N{SNOWMAN}": "Grüße, 你好, \N{SNOWMAN}",
    "": "",
}


@pytest.mark.parametrize("text", SHOWN, ids=ascii)
def test_only_what_can_be_read_is_shown(text):
    assert one_line(text) == SHOWN[text]


def test_no_control_character_gets_through():
    every = "".join(map(chr, range(0x20000)))
    assert one_line(every, 1 << 20).isprintable()


def test_a_long_text_is_cut():
    assert one_line("x" * 201) == "x" * 197 + "..."
    assert one_line("x" * 200) == "x" * 200
    assert one_line("word " * 3, 10) == "word wo..."


@pytest.mark.parametrize("piece", ["\x1b]", "\x9d", "\x1b[", "\x1b", " ", "\x1b]0;"])
def test_a_hostile_text_takes_no_longer_than_another(piece):
    started = time.monotonic()
    one_line(piece * 2_000_000)
    assert time.monotonic() - started < 10  # a squared cost would take hours


def test_lines_stay_lines_and_obey_nobody(capsys):
    text = "a table\n\tof \x1b[31mtwo\x1b[0m lines\x1b]0;title\x07\r\n\ud800end"
    assert plain(text) == "a table\n\tof two lines\nend"
    say(text)
    assert capsys.readouterr().err == "a table\n\tof two lines\nend\n"
    say("x" * 10_000)
    assert len(capsys.readouterr().err) < 5000


def test_what_is_logged_is_made_plain_with_its_arguments():
    record = logging.LogRecord("cai", 20, "f", 1, "model=%s", ("\x1b[2Jx\nnext",), None)
    assert PlainFormatter("%(message)s").format(record) == "model=x\nnext"


def test_nobody_reads_what_is_said(monkeypatch):
    class Closed:
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Closed())
    say("lost")


def test_a_text_of_several_lines_keeps_them_and_obeys_nothing():
    every = "".join(map(chr, range(0x20000)))
    shown = readable(every)
    assert shown.replace("\n", "").isprintable()
    assert shown.count("\n") == 1
    assert readable("a\n\n  b\tc\r\n\x1b[2Jd\x9b1m") == "a\n\n  b    c\n[2Jd1m"


def test_a_growing_text_never_changes_in_what_was_shown():
    text = "one \x1b]0;title\x07two\n\x1b[31mthree \u202e\ud800 four\x00"
    shown = [readable(text[:n]) for n in range(len(text) + 1)]
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(shown))
