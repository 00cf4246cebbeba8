"""Servers that drip, swell, lie and paint, and proxies in between: none harms the client."""

import json
import logging
import os
import signal
import subprocess
import sys
import time

import pytest
from chat_server import ChatServer, Raw, completion, endpoint_config, refusal

from cai.dialogue import human
from cai.errors import UserError
from cai.labelling import endpoint as module
from cai.labelling.choice_reading import first_option_probability, read_choice
from cai.labelling.endpoint import Endpoint, Refused, Request
from cai.labelling.reply import parse_reply
from cai.labelling.transport import is_local

HELLO = Request((human("Hello?"),), {"max_tokens": 3, "temperature": 0.0})
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "FIRST_WAIT", 0.01)
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def ask(tmp_path):
    def make(server, request=HELLO, **changes):
        url = server if isinstance(server, str) else server.url
        return Endpoint(endpoint_config(url, **changes), tmp_path / "cache").ask(request)

    return make


def drip(server, start=b""):
    """Send a byte now and then for as long as the server lives."""
    yield start
    while not server.gone.wait(0.05):
        yield b"x"


@pytest.mark.parametrize("status", [200, 400, 401, 429, 503])
def test_a_body_that_drips_ends_with_the_timeout(status, ask):
    with (
        ChatServer(lambda got, n: (status, drip(server), {})) as server,
        pytest.raises((UserError, Refused)) as caught,
    ):
        ask(server, timeout=0.3, retries=1)
    said = {200: "nothing within 0.3 s", 400: "xx", 401: "status 401"}
    assert said.get(status, f"status {status}") in str(caught.value)


@pytest.mark.parametrize(
    "start",
    [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 100 Continue\r\n\r\n"],
)
def test_headers_that_drip_end_with_the_timeout(start, ask):
    with (
        ChatServer(lambda got, n: Raw(drip(server, start))) as server,
        pytest.raises(UserError, match=r"nothing within 0\.3 s"),
    ):
        ask(server, timeout=0.3, retries=0)


def test_a_reply_without_end_is_left(ask):
    def flood():
        while not server.gone.is_set():
            yield b" " * (1 << 20)

    with (
        ChatServer(lambda got, n: (200, flood(), {})) as server,
        pytest.raises(UserError, match="is not a chat completion"),
    ):
        ask(server, retries=0, timeout=60.0)


def test_a_packed_reply_is_not_unpacked(ask):
    headers = {"Content-Encoding": "gzip"}
    with (
        ChatServer(lambda got, n: (200, b"\x1f\x8b\x08" + b"\0" * 99, headers)) as server,
        pytest.raises(UserError, match="is not a chat completion"),
    ):
        ask(server, retries=0)
    assert server.requests[0].headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("count", ["9" * 400, "-5", "1e400", "true", '"7"', "null", "[]", "1e300"])
def test_counts_of_tokens_that_are_none_count_nothing(count, ask):
    text = json.dumps(completion("Hi.")).replace('"total_tokens": 7', f'"total_tokens": {count}')
    with ChatServer(lambda got, n: text) as server:
        reply = ask(server)
    assert reply.text == "Hi."
    assert reply.tokens == (1 if count == "true" else 0)
    assert ask(server) == reply


def test_what_cannot_be_a_kept_reply_is_asked_for_again(ask, tmp_path):
    with ChatServer(lambda got, n: completion("Hi.")) as server:
        ask(server)
        [path] = (tmp_path / "cache").rglob("*.json")
        for text in ("[" * 100_000, '{"choices": ' * 50_000, "9" * 5000, "{}", "null", "\0"):
            path.write_text(text)
            assert ask(server).text == "Hi."
        path.unlink()
        os.mkfifo(path)  # would be waited for without end
        assert ask(server).text == "Hi."
    assert len(server.requests) == 1 + 7
    assert ask(server).text == "Hi."
    assert [p for p in (tmp_path / "cache").rglob("*") if p.is_file()] == [path]


@pytest.mark.parametrize("text", [" ", "*", "(", "A", "(A)(B)", "The answer is", "\n(", ": "])
def test_a_reply_of_five_megabytes_is_read_in_one_pass(text):
    started = time.monotonic()
    long = text * (5_000_000 // len(text))
    reply = parse_reply(completion(long))
    assert read_choice(reply.text) is None
    assert time.monotonic() - started < 20  # a squared cost would take weeks


def test_many_tokens_cost_no_more_than_they_are():
    started = time.monotonic()
    tokens = [(" ", {" ": -0.1, "A": -3.0})] * 50_000
    reply = parse_reply(completion("(A)", tokens))
    assert first_option_probability(reply) is None
    assert time.monotonic() - started < 20


def test_lone_surrogates_do_not_get_in(ask):
    text = json.dumps(completion("so \ud800 (A)", [("\udfff", {"\udfff": -0.1, "A": -3.0})]))
    with ChatServer(lambda got, n: text) as server:
        reply = ask(server)
    assert reply.text == "so ? (A)"
    assert ask(server) == reply


PAINT = "\x1b[31mred\x1b[0m \x1b]0;owned\x07\x9b2J bell\x07 \u202eback\nnew line"


@pytest.mark.parametrize("status", [400, 402, 418])
def test_escape_sequences_of_a_server_reach_no_terminal(status, tmp_path, caplog):
    def answer(got, n):
        last = got.body["messages"][-1]["content"]
        return refusal(PAINT, status) if last == "Hello?" else completion("Hi.")

    caplog.set_level(logging.DEBUG)
    other = HELLO._replace(conversation=(human("Hello."),))
    with ChatServer(answer) as server:
        endpoint = Endpoint(endpoint_config(server.url), tmp_path)
        with pytest.raises((UserError, Refused)) as caught:
            endpoint.ask(HELLO)
        if status == 400:
            endpoint.ask_all([HELLO, other])
    said = [str(caught.value), *(record.getMessage() for record in caplog.records)]
    assert any("red bell back new line" in text for text in said)
    assert all(text.isprintable() for text in said)


def test_a_reason_phrase_paints_nothing(ask):
    with (
        ChatServer(lambda got, n: Raw([b"HTTP/1.1 \x1b[31mred 200\r\n\r\n"])) as server,
        pytest.raises(UserError) as caught,
    ):
        ask(server, retries=0)
    assert str(caught.value).isprintable()


def test_a_key_in_disguise_is_hidden(ask, monkeypatch):
    key = "sk-secret-0123456789"
    monkeypatch.setenv("JUDGE_KEY", key)
    disguised = f"{key[:9]}\x1b[0m{key[9:12]}\u200b{key[12:]}"
    with (
        ChatServer(lambda got, n: refusal(f"no {disguised} here")) as server,
        pytest.raises(Refused) as caught,
    ):
        ask(server, key_variable="JUDGE_KEY")
    assert str(caught.value) == "no [key] here"


def test_words_of_an_error_are_found_in_every_form(ask):
    forms = [
        {"error": {"message": "too long"}},
        {"error": "too long"},
        {"object": "error", "message": "too long"},
        {"detail": "too long"},
        {"detail": [{"loc": ["body"], "msg": "too long"}]},
        "too long",
    ]
    for form in forms:
        with (
            ChatServer(lambda got, n, form=form: (400, form, {})) as server,
            pytest.raises(Refused, match="too long"),
        ):
            ask(server)


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_is_asked_for_other_machines_and_never_for_this_one(variable, ask, monkeypatch):
    with (
        ChatServer(lambda got, n: completion("by proxy")) as proxy,
        ChatServer(lambda got, n: completion("Hi.")) as server,
    ):
        monkeypatch.setenv(variable, proxy.url)
        assert ask(server).text == "Hi."
        assert ask(server.url.replace("127.0.0.1", "localhost")).text == "Hi."
        assert not proxy.requests
        assert ask("http://judge.example:8000").text == "by proxy"
    assert proxy.requests[0].path == "http://judge.example:8000/v1/chat/completions"


LOCAL = {
    "localhost": True,
    "LOCALHOST.": True,
    "api.localhost": True,
    "127.0.0.1": True,
    "127.8.9.10": True,
    "::1": True,
    "0.0.0.0": True,
    "10.0.0.1": False,
    "localhost.example": False,
    "judge.example": False,
    "127.0.0.1.example": False,
}


@pytest.mark.parametrize("host", LOCAL)
def test_which_addresses_are_local(host):
    assert is_local(host) is LOCAL[host]


@pytest.mark.parametrize(
    "variable, value, said",
    [
        ("ALL_PROXY", "socks5://user:secret@proxy:1080", "install httpx[socks]"),
        ("HTTP_PROXY", "gopher://user:secret@proxy", "correct them"),
        ("NO_PROXY", "fd00::/8", "correct them"),
        ("SSL_CERT_FILE", "/nowhere/secret.pem", "SSL_CERT_FILE"),
    ],
)
def test_an_environment_that_cannot_be_used_is_a_sentence(variable, value, said, ask, monkeypatch):
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError) as caught:
        ask("http://judge.example")
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)
    assert str(caught.value).isprintable()


WAITS = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
sys.path.insert(0, "tests")
from chat_server import endpoint_config
from cai.dialogue import human
from cai.labelling.endpoint import Endpoint, Request
requests = [Request((human(str(n)),), {}) for n in range(20)]
try:
    Endpoint(endpoint_config(sys.argv[1], timeout=600.0), Path(sys.argv[2])).ask_all(requests)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_ends_the_waiting_at_once(tmp_path):
    def hang(got, n):
        server.gone.wait(60)
        return completion("too late")

    with ChatServer(hang) as server:
        command = [sys.executable, "-c", WAITS, server.url, str(tmp_path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        while len(server.requests) < module.WORKERS:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=50)
    assert (out, process.returncode) == ("interrupted\n", 0)


def test_a_client_works_inside_an_event_loop(tmp_path):
    import asyncio

    async def notebook():
        return Endpoint(endpoint_config(server.url), tmp_path).ask(HELLO).text

    with ChatServer(lambda got, n: completion("Hi.")) as server:
        assert asyncio.run(notebook()) == "Hi."
