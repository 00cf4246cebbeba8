"""The arena's command: mistakes are one sentence, said before anything heavy is imported."""

import socket
import sys

import pytest
from arena.made import write_run

from cai.arena.__main__ import main
from cai.arena.place import Place, is_local


def test_only_this_machine_needs_no_password():
    assert all(map(is_local, ("127.0.0.1", "localhost", "::1", "127.1.2.3")))
    assert not any(map(is_local, ("0.0.0.0", "::", "10.0.0.1", "example.org")))


def told(capsys, *words):
    assert main([str(word) for word in words]) == 1
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    return said


def test_mistakes_are_one_sentence(tmp_path, capsys):
    assert "holds no evaluation" in told(capsys, tmp_path)
    run = write_run(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"--port={port} can't be used (Address already in use)" in told(
            capsys, run, "--port", port
        )
    assert "can't be used" in told(capsys, run, "--host", "192.0.2.1")
    for words in (["--ballots", "0"], ["--port", "65536"]):
        with pytest.raises(SystemExit):
            main([str(run), *words])


def test_a_library_that_is_missing_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    for name in ("cai.arena.page", "cai.arena.serve"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    said = told(capsys, write_run(tmp_path), "--port", "49317")
    assert said == "the arena needs gradio: pip install 'constitutional-ai[arena]'\n"


def test_an_address_is_written_as_a_browser_takes_it():
    assert Place("127.0.0.1", 80).address == "http://127.0.0.1:80"
    assert Place("::1", 80).address == "http://[::1]:80"
