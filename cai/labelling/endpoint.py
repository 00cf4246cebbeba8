"""A client of OpenAI-compatible servers that retries, keeps to a rate, and asks nothing twice."""

from __future__ import annotations

import http.client
import json
import logging
import os
import random
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from cai.config import EndpointConfig
from cai.dialogue import Conversation, to_messages
from cai.errors import UserError
from cai.labelling.reply import Reply, parse_reply
from cai.labelling.reply_cache import ReplyCache

log = logging.getLogger(__name__)

WORKERS = 8
"""Requests that are under way at a time."""
FIRST_WAIT = 0.5
"""Seconds before the first retry; they double with each, up to ``LONGEST_WAIT``."""
LONGEST_WAIT = 30.0
LONGEST_RETRY_AFTER = 120.0
"""A server that asks for more patience than this is asked again all the same."""
LARGEST_REPLY = 8 << 20
PASSING = frozenset({408, 425, 429})
"""Statuses that a later attempt may change, besides all from 500 on."""
REFUSALS = frozenset({400, 413, 422})
"""Statuses that speak of one request: too long, filtered, or with a field that is not known."""
SHORTEST_SECRET = 8
"""A shorter key ("none", "EMPTY") only fills the field; a reply may well contain it."""
_KEY = re.compile(r"[!#-\[\]-~]+")


class Request(NamedTuple):
    """What is asked: a conversation, and the fields beside it."""

    conversation: Conversation
    options: Mapping[str, Any]


class Refused(Exception):
    """The server will not answer this request, but may answer others."""


class _Passing(Exception):
    """An attempt failed in a way that another may not."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        """Say why, and for how many seconds the server asked to be left alone."""
        super().__init__(reason)
        self.wait = wait


class RateLimit:
    """Lets threads pass one by one, ``1 / per_second`` apart."""

    def __init__(self, per_second: float) -> None:
        """Start open."""
        self._gap, self._next, self._lock = 1 / per_second, 0.0, threading.Lock()

    def wait(self) -> None:
        """Return when it is this thread's turn."""
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next)
            self._next = start + self._gap
        time.sleep(start - now)

    def pause(self, seconds: float) -> None:
        """Let nobody pass for a while."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: it would carry the key to another server."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class Endpoint:
    """One model behind one server; safe to use from several threads."""

    def __init__(self, settings: EndpointConfig, cache: Path) -> None:
        """Read the key from the environment.

        Raises:
            UserError: If the variable that should hold it is empty or holds something else.
        """
        self.settings = settings
        address = (settings.url or "").rstrip("/")
        base = address if urlsplit(address).path else f"{address}/v1"
        self._address = f"{base}/chat/completions"
        self._key = _read_key(settings)
        self._cache = ReplyCache(cache)
        self._limit = RateLimit(settings.per_second)
        self._opener = urllib.request.build_opener(_NoRedirect)
        self._random = random.Random()  # jitter must not disturb the seeded generators

    def ask(self, request: Request) -> Reply:
        """Return the reply, from the cache if the same was asked before.

        Raises:
            Refused: If the server will not answer this request.
            UserError: If it gives no usable answer at all.
        """
        body = {
            "model": self.settings.model,
            "messages": to_messages(request.conversation),
            **request.options,
        }
        known = {"address": self._address, "body": body}
        if (found := self._cache.find(known)) is not None:
            return found
        reply = self._send(json.dumps(body).encode())
        self._cache.keep(known, reply)
        return reply

    def ask_all(self, requests: Sequence[Request]) -> list[Reply | None]:
        """Ask in parallel; a request that the server refuses has no reply.

        Raises:
            UserError: If it refuses all of them, or gives no usable answer.
        """
        refusals: list[str] = []

        def ask(request: Request) -> Reply | None:
            try:
                return self.ask(request)
            except Refused as refusal:
                refusals.append(str(refusal))
                return None

        with ThreadPoolExecutor(WORKERS) as pool:  # map cancels what is left after a failure
            replies = list(pool.map(ask, requests))
        if refusals and len(refusals) == len(requests):
            raise self.refused(refusals[0])
        if refusals:
            log.warning("%d of %d requests refused: %s", len(refusals), len(requests), refusals[0])
        return replies

    def refused(self, words: str) -> UserError:
        """Make an error of a refusal that concerns all requests."""
        return UserError(
            f"{self._name} refuses every request ({words}): correct {self.settings.node}.model, "
            "or use a server that takes chat completions"
        )

    @property
    def _name(self) -> str:
        return f"{self.settings.node}.url={self.settings.url}"

    def _send(self, data: bytes) -> Reply:
        attempts, reason, node = self.settings.retries + 1, "", self.settings.node
        for attempt in range(attempts):
            self._limit.wait()
            try:
                return self._attempt(data)
            except _Passing as failure:
                reason = str(failure)
                log.debug("attempt %d of %d: %s", attempt + 1, attempts, reason)
                self._limit.pause(failure.wait)
            if attempt + 1 < attempts:
                wait = min(FIRST_WAIT * 2 ** min(attempt, 10), LONGEST_WAIT)
                time.sleep(wait * self._random.uniform(0.5, 1.0))
        raise UserError(
            f"{self._name} gave no answer in {attempts} attempts (the last one: {reason}): start "
            f"the server, correct the address, lower {node}.per_second, or raise {node}.timeout "
            f"or {node}.retries"
        )

    def _attempt(self, data: bytes) -> Reply:
        headers = {"Content-Type": "application/json", "User-Agent": "cai"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self._address, data, headers, method="POST")
        try:
            with self._opener.open(request, timeout=self.settings.timeout) as response:
                text = self._read(response)
            return parse_reply(json.loads(text))
        except urllib.error.HTTPError as error:
            with error:
                raise self._failure(error) from None
        except TimeoutError:
            raise _Passing(f"nothing within {self.settings.timeout:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise _Passing(self._one_line(_reason(error))) from None
        except (ValueError, RecursionError):
            raise _Passing("its answer is not a chat completion") from None

    def _read(self, response: http.client.HTTPResponse) -> str:
        """Read a whole answer; the key, should a server repeat it, does not get past here.

        The timeout of a socket starts anew with every byte, so the whole answer has one as well.
        """
        deadline = time.monotonic() + self.settings.timeout
        body = b""
        while part := response.read1(1 << 16):
            body += part
            if time.monotonic() > deadline:
                raise TimeoutError
            if len(body) > LARGEST_REPLY:
                raise ValueError("too long")
        text = body.decode("utf-8")
        if self._key and len(self._key) >= SHORTEST_SECRET:
            plain = json.dumps(json.loads(text), ensure_ascii=False)
            if self._key in plain:
                raise ValueError("it repeats the key")
        return text

    def _failure(self, error: urllib.error.HTTPError) -> Exception:
        """Choose what to do about a status that is not 200."""
        status, settings = error.code, self.settings
        if status in {401, 403}:
            advice = (
                f"put a valid key into the environment variable {settings.key_variable}"
                if settings.key_variable
                else f"set {settings.node}.key_variable to the name of the environment variable "
                "that holds a key"
            )
            return UserError(f"{self._name} does not let us in (status {status}): {advice}")
        if status in {404, 405}:
            return UserError(
                f"{self._name} has no chat completions for {settings.node}.model="
                f"{settings.model} (status {status}): correct one of them"
            )
        if status in PASSING or status >= 500:
            return _Passing(f"status {status}", _retry_after(error.headers.get("Retry-After")))
        words = self._words(error)
        if status in REFUSALS:
            return Refused(words)
        return UserError(
            f"{self._name} answered with status {status} ({words}): correct {settings.node}"
        )

    def _words(self, error: urllib.error.HTTPError) -> str:
        """Return what the server says about an error, short and without the key."""
        text = ""
        with suppress(OSError, http.client.HTTPException):
            text = error.read(1 << 16).decode("utf-8", "replace")
        with suppress(ValueError, RecursionError, KeyError, TypeError):
            text = str(json.loads(text)["error"]["message"])
        return self._one_line(text) or f"status {error.code}"

    def _one_line(self, text: str) -> str:
        line = " ".join(text.split())
        return (line.replace(self._key, "[key]") if self._key else line)[:200].rstrip(".")


def _read_key(settings: EndpointConfig) -> str | None:
    if not (variable := settings.key_variable):
        return None
    key = os.environ.get(variable, "").strip()
    if not _KEY.fullmatch(key):
        state = "holds something that can't be a key" if key else "is not set"
        raise UserError(
            f"{settings.node}.key_variable={variable}: that environment variable {state}; put "
            "the server's key into it, or use null for a server that wants none"
        )
    return key


def _reason(error: BaseException) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    text = cause.strerror if isinstance(cause, OSError) else None
    return str(text or cause) or type(cause).__name__


def _retry_after(value: str | None) -> float:
    """Read a Retry-After header: seconds or a date."""
    if value is None:
        return 0.0
    seconds = 0.0
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value.strip()):
        seconds = float(value)
    else:
        with suppress(ValueError, TypeError, OverflowError):
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)
