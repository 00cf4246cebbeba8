"""A real HTTP server in a thread, which answers chat completions as a test tells it to."""

import json
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from cai.config import EndpointConfig


class Got(NamedTuple):
    """A request as it arrived."""

    path: str
    headers: dict
    body: dict
    time: float


class Raw(NamedTuple):
    """Pieces that are sent as they are, in place of a whole response."""

    pieces: object


class ChatServer:
    """Calls ``answer(got, n)`` for the n-th request.

    It returns a completion, or a tuple of status, body (text, bytes or JSON) and headers, or
    ``Raw``; a generator sends its pieces one by one and never says how many there will be.
    """

    def __init__(self, answer):
        self.answer, self.requests, self.gone = answer, [], threading.Event()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.gone.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(outer):
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                length = int(self.headers["Content-Length"])
                body = json.loads(self.rfile.read(length))
                with outer._lock:
                    n = len(outer.requests)
                    got = Got(self.path, dict(self.headers), body, time.monotonic())
                    outer.requests.append(got)
                with suppress(ConnectionError):  # the client may not have waited
                    outer._send(self, outer.answer(got, n))

            def do_GET(self):
                outer.requests.append(Got(self.path, dict(self.headers), {}, time.monotonic()))
                self.send_error(405)

            def log_message(self, *_):
                pass

        return Handler

    @staticmethod
    def _send(handler, answer):
        if isinstance(answer, Raw):
            for piece in answer.pieces:
                handler.wfile.write(piece)
                handler.wfile.flush()
            return
        status, body, headers = answer if isinstance(answer, tuple) else (200, answer, {})
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        pieces = body if hasattr(body, "__next__") else [_bytes(body)]
        if not hasattr(body, "__next__") and "Content-Length" not in headers:
            handler.send_header("Content-Length", str(len(pieces[0])))
        handler.end_headers()
        for piece in pieces:
            handler.wfile.write(piece)
            handler.wfile.flush()


def _bytes(body):
    if isinstance(body, bytes):
        return body
    return (body if isinstance(body, str) else json.dumps(body)).encode()


def refusal(words, status=400):
    """Refuse a request as OpenAI does."""
    return status, {"error": {"message": words, "type": "invalid_request_error"}}, {}


def completion(text, logprobs=None, finish="stop", tokens=7, **message):
    """Make a chat completion; ``logprobs`` is a list of (token, {rival: log-probability})."""
    content = [
        {
            "token": token,
            "logprob": rivals[token],
            "top_logprobs": [{"token": t, "logprob": p} for t, p in rivals.items()],
        }
        for token, rivals in logprobs or []
    ]
    return {
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, **message},
                "finish_reason": finish,
                "logprobs": {"content": content} if logprobs is not None else None,
            }
        ],
        "usage": {"prompt_tokens": tokens - 1, "completion_tokens": 1, "total_tokens": tokens},
    }


def endpoint_config(url, **changes):
    values = {
        "url": url,
        "model": "judge",
        "key_variable": None,
        "timeout": 5.0,
        "retries": 2,
        "per_second": 1000.0,
        "votes": 16,
    }
    return EndpointConfig(**{**values, **changes})
