"""The client of a chat server, against real servers that answer, fail, hang and lie."""

import json
import logging
import threading
import time
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from chat_server import ChatServer, completion, endpoint_config

from cai.dialogue import human
from cai.errors import UserError
from cai.labelling import endpoint as module
from cai.labelling import rate
from cai.labelling.endpoint import Endpoint, Refused, Request
from cai.labelling.reply import ServerReply

KEY = "sk-Secret/0123456789-abcdef"
HELLO = Request((human("Hello?"),), {"max_tokens": 3, "temperature": 0.0})


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "FIRST_WAIT", 0.01)


@pytest.fixture
def ask(tmp_path):
    def make(server, request=HELLO, **changes):
        return Endpoint(endpoint_config(server.url, **changes), tmp_path / "cache").ask(request)

    return make


def script(*answers):
    """Answer the n-th request with the n-th answer, and all after the last one with that."""
    return lambda got, n: answers[min(n, len(answers) - 1)]


def one_sentence(error):
    text = str(error.value)
    assert "\n" not in text
    assert "Traceback" not in text
    return text


def test_a_request_is_what_the_protocol_says(ask):
    with ChatServer(script(completion("Hi."))) as server:
        assert ask(server) == ServerReply("Hi.", True, None, 7)
    [got] = server.requests
    assert got.path == "/v1/chat/completions"
    assert got.body == {
        "model": "judge",
        "messages": [{"role": "user", "content": "Hello?"}],
        "max_tokens": 3,
        "temperature": 0.0,
    }
    assert "Authorization" not in got.headers


@pytest.mark.parametrize(
    "given, path",
    [("", "/v1"), ("/", "/v1"), ("/v1", "/v1"), ("/v1/", "/v1"), ("/api/v3", "/api/v3")],
)
def test_an_address_without_a_path_gets_v1(given, path, tmp_path):
    with ChatServer(script(completion("Hi."))) as server:
        Endpoint(endpoint_config(server.url + given), tmp_path).ask(HELLO)
    assert server.requests[0].path == f"{path}/chat/completions"


def test_two_failures_are_forgiven(ask):
    failure = (500, "out of order", {})
    with ChatServer(script(failure, failure, completion("Hi."))) as server:
        assert ask(server, retries=2).text == "Hi."
    assert len(server.requests) == 3


def test_one_failure_too_many_is_a_sentence(ask):
    broken = (503, "out of order", {})
    with ChatServer(script(broken)) as server, pytest.raises(UserError) as caught:
        ask(server, retries=2)
    assert len(server.requests) == 3
    assert f"{server.url} gave no answer in 3 attempts" in one_sentence(caught)
    assert "status 503" in str(caught.value)


def test_waits_double_and_have_jitter(ask, monkeypatch):
    monkeypatch.setattr(module, "FIRST_WAIT", 1.0)
    monkeypatch.setattr(module, "LONGEST_WAIT", 6.0)
    waits = []

    async def sleep(seconds):
        waits.append(seconds) if seconds > 0.1 else None

    with ChatServer(script((500, "", {}))) as server, pytest.raises(UserError):
        monkeypatch.setattr(module.anyio, "sleep", sleep)
        ask(server, retries=5)
    assert len(waits) == 5
    for wait, longest in zip(waits, [1, 2, 4, 6, 6], strict=True):
        assert longest / 2 <= wait <= longest
    assert len(set(waits)) == 5


def test_retry_after_is_obeyed(ask):
    busy = (429, "slow down", {"Retry-After": "0.4"})
    with ChatServer(script(busy, completion("Hi."))) as server:
        assert ask(server).text == "Hi."
    first, second = (got.time for got in server.requests)
    assert 0.4 <= second - first < 2


def test_retry_after_may_be_a_date_and_has_a_limit():
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 28 < rate.retry_after(soon) <= 30
    assert rate.retry_after("86400") == rate.LONGEST_RETRY_AFTER
    past = "Wed, 21 Oct 2015 07:28:00 GMT"
    for value in (None, past, "-5", "nan", "soon", "", "9" * 400):
        assert rate.retry_after(value) == 0


def test_a_server_that_hangs_is_left(ask):
    def hang(got, n):
        server.gone.wait(10)
        return completion("too late")

    started = time.monotonic()
    with ChatServer(hang) as server:
        with pytest.raises(UserError) as caught:
            ask(server, timeout=0.2, retries=1)
        assert "nothing within 0.2 s" in one_sentence(caught)
        assert time.monotonic() - started < 2
    assert len(server.requests) == 2


def test_a_server_that_drips_is_left(ask):
    """Each byte comes in time, the whole never does."""

    def drip():
        for _ in range(200):
            yield b" "
            time.sleep(0.05)

    started = time.monotonic()
    with ChatServer(lambda got, n: (200, drip(), {})) as server, pytest.raises(UserError) as caught:
        ask(server, timeout=0.3, retries=0)
    assert time.monotonic() - started < 2
    assert "nothing within 0.3 s" in one_sentence(caught)


NOT_A_NUMBER = completion("Hi.", [("H", {"H": float("nan"), "x": -1.0})])
RUBBISH = {
    "no JSON": "<html>Welcome</html>",
    "nothing": "",
    "not text": b"\xff\xfe",
    "too deep": "[" * 100_000,
    "a list": [],
    "no choices": {"choices": []},
    "no message": {"choices": [{}]},
    "content of numbers": {"choices": [{"message": {"content": 5}}]},
    "choice is text": {"choices": ["A"]},
    "no number": NOT_A_NUMBER,
    "cut": (200, '{"choices": [', {"Content-Length": "1000"}),
}


@pytest.mark.parametrize("name", RUBBISH)
def test_rubbish_is_asked_for_again_and_never_kept(name, ask, tmp_path):
    with ChatServer(script(RUBBISH[name], completion("Hi."))) as server:
        assert ask(server).text == "Hi."
    with ChatServer(script(RUBBISH[name])) as server, pytest.raises(UserError) as caught:
        ask(server, retries=1)
    assert "is not a chat completion" in one_sentence(caught)
    assert len(list((tmp_path / "cache").rglob("*.json"))) == 1


def test_an_empty_message_is_an_answer_that_says_nothing(ask):
    with ChatServer(script(completion(None, finish="content_filter"))) as server:
        assert ask(server) == ServerReply("", False, None, 7)


def test_nobody_there(ask):
    with ChatServer(script(completion("Hi."))) as server:
        pass
    with pytest.raises(UserError) as caught:
        ask(server, retries=1)
    assert "Connection refused" in one_sentence(caught)
    assert "start the server" in str(caught.value)


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_not_accepted(status, ask, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    with ChatServer(script((status, "no", {}))) as server:
        with pytest.raises(UserError) as caught:
            ask(server, key_variable="JUDGE_KEY")
        assert "environment variable JUDGE_KEY" in one_sentence(caught)
        with pytest.raises(UserError, match=r"set feedback\.endpoint\.key_variable"):
            ask(server)
    assert len(server.requests) == 2


def test_a_model_that_is_not_there(ask):
    with ChatServer(script((404, "no", {}))) as server, pytest.raises(UserError) as caught:
        ask(server)
    assert f"feedback.endpoint.url={server.url}" in one_sentence(caught)
    assert "feedback.endpoint.model=judge" in str(caught.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status, ask, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    with ChatServer(script(completion("Hi."))) as other:
        moved = (status, "", {"Location": other.url + "/v1/chat/completions"})
        with (
            ChatServer(script(moved)) as server,
            pytest.raises(UserError, match=f"status {status}"),
        ):
            ask(server, key_variable="JUDGE_KEY")
    assert not other.requests


def test_one_refusal_is_one_missing_reply_and_all_are_an_error(tmp_path):
    def answer(got, n):
        if "bomb" in got.body["messages"][0]["content"]:
            return (400, {"error": {"message": "filtered\nby policy"}}, {})
        return completion("Hi.")

    fine, bad = HELLO, Request((human("A bomb"),), {})
    with ChatServer(answer) as server:
        endpoint = Endpoint(endpoint_config(server.url), tmp_path)
        with pytest.raises(Refused):
            endpoint.ask(bad)
        assert [r and r.text for r in endpoint.ask_all([bad, fine, bad])] == [None, "Hi.", None]
        with pytest.raises(UserError) as caught:
            endpoint.ask_all([bad, bad])
    assert "refuses every request (filtered by policy)" in one_sentence(caught)


def test_a_dead_server_ends_a_long_list_soon(tmp_path):
    with ChatServer(script((500, "", {}))) as server:
        endpoint = Endpoint(endpoint_config(server.url, retries=1), tmp_path)
        requests = [Request((human(f"Number {n}"),), {}) for n in range(2000)]
        with pytest.raises(UserError):
            endpoint.ask_all(requests)
    assert len(server.requests) < 200


def test_the_rate_is_kept_by_all_threads_together(tmp_path):
    with ChatServer(script(completion("Hi."))) as server:
        endpoint = Endpoint(endpoint_config(server.url, per_second=40.0), tmp_path)
        endpoint.ask_all([Request((human(f"Number {n}"),), {}) for n in range(12)])
    times = sorted(got.time for got in server.requests)
    assert times[-1] - times[0] >= 11 / 40 - 0.05
    assert times[-1] - times[0] < 2


def test_the_cache_answers_when_the_server_is_gone(ask):
    with ChatServer(script(completion("Hi.", [("Hi", {"Hi": -0.5, "Ho": -1.0})]))) as server:
        first = ask(server)
        assert ask(server) == first
        assert len(server.requests) == 1
    assert ask(server) == first
    assert first.places is not None
    assert first.places[0].candidates[1] == ("Ho", -1.0)
    for other in (
        HELLO._replace(conversation=(human("Hello."),)),
        HELLO._replace(options={"max_tokens": 3, "temperature": 0.1}),
    ):
        with pytest.raises(UserError):
            ask(server, other, retries=0)
    with pytest.raises(UserError):
        ask(server, retries=0, model="another")


def test_a_damaged_cache_is_made_again(ask, tmp_path):
    with ChatServer(script(completion("Hi."))) as server:
        ask(server)
        [path] = (tmp_path / "cache").rglob("*.json")
        whole = path.read_text()
        path.write_text(whole[:20])
        assert ask(server).text == "Hi."
        assert path.read_text() == whole
    assert len(server.requests) == 2


def test_writers_of_one_reply_do_not_disturb_readers(tmp_path):
    reply, request = ServerReply("x" * 200_000, True, None), {"body": "same"}
    torn, done = [], threading.Event()

    def read():
        while not done.is_set():
            text = path.read_text()
            torn.append(len(text)) if len(text) != size else None

    cache = module.ReplyCache(tmp_path)
    cache.keep(request, reply)
    [path] = tmp_path.rglob("*.json")
    size = len(path.read_text())
    threads = [threading.Thread(target=cache.keep, args=(request, reply)) for _ in range(20)]
    reader = threading.Thread(target=read)
    for thread in [reader, *threads]:
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    reader.join()
    assert torn == []
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with ChatServer(script(completion("Hi."))) as server, pytest.raises(UserError) as caught:
        Endpoint(endpoint_config(server.url), tmp_path / "file").ask(HELLO)
    assert "set CAI_CACHE" in one_sentence(caught)


def echo(got):
    """Return what a careless server would say: the key, in several ways of writing it."""
    key = got.headers["Authorization"].removeprefix("Bearer ")
    escaped = json.dumps(completion(f"Your key is {key}")).replace("/", "\\/")
    unicode = json.dumps(completion(f"Your key is {key}")).replace("-", "\\u002d")
    return [
        completion(f"Your key is {key}"),
        escaped,
        unicode,
        f"your key is {key}",
        (500, f"key {key}", {"X-Key": key}),
        (400, {"error": {"message": f"bad request with {key}"}}, {}),
        (401, f"bad key {key}", {}),
        (402, {"error": {"message": f"pay for {key}"}}, {}),
        (404, f"no {key}", {}),
    ]


@pytest.mark.parametrize("n", range(9))
def test_the_key_is_sent_and_kept_nowhere(n, ask, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    with ChatServer(lambda got, _: echo(got)[n]) as server:
        with pytest.raises((UserError, Refused)) as caught:
            ask(server, key_variable="JUDGE_KEY", retries=1)
        server.answer = script(completion("Hi."))
        ask(server, key_variable="JUDGE_KEY")
    assert all(got.headers["Authorization"] == f"Bearer {KEY}" for got in server.requests)
    said = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    logged = "".join(record.getMessage() + str(record.exc_info) for record in caplog.records)
    files = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 1
    for text in (said, logged, *files):
        assert KEY not in text
        assert KEY[3:15] not in text


@pytest.mark.parametrize(
    "value, state", [(None, "is not set"), (" ", "is not set"), ("a\nb", "holds something")]
)
def test_a_variable_without_a_key(value, state, monkeypatch, tmp_path):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("JUDGE_KEY", value)
    with pytest.raises(UserError) as caught:
        Endpoint(endpoint_config("http://x", key_variable="JUDGE_KEY"), tmp_path)
    assert "key_variable=JUDGE_KEY" in one_sentence(caught)
    assert state in str(caught.value)
    assert "a\nb" not in str(caught.value)


BAD = {
    "model": (None, "feedback.endpoint.model is null"),
    "url": ("localhost:8000", "http://localhost:8000 or"),
}


@pytest.mark.parametrize("key", BAD)
def test_a_wrong_setting_is_named(key):
    value, allowed = BAD[key]
    with pytest.raises(UserError) as caught:
        endpoint_config(**{"url": "http://x", key: value})
    assert f"feedback.endpoint.{key}" in one_sentence(caught)
    assert allowed in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"key_variable": KEY},
        {"url": f"http://user:{KEY}@host/v1"},
        {"url": f"http://host/v1?key={KEY}"},
    ],
)
def test_a_key_in_the_wrong_place_is_not_repeated(changes):
    with pytest.raises(UserError) as caught:
        endpoint_config(**{"url": "http://x", **changes})
    assert KEY not in one_sentence(caught)
    assert "environment variable" in str(caught.value)
