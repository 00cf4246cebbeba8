"""A client of OpenAI-compatible servers that retries, keeps to a rate, and asks nothing twice."""

from __future__ import annotations

import json
import logging
import os
import random
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import anyio
import httpx
from anyio.from_thread import start_blocking_portal
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential,
)

from cai.config import EndpointConfig
from cai.dialogue import Conversation, to_messages
from cai.errors import UserError
from cai.labelling.rate import RateLimit, retry_after
from cai.labelling.reply import ServerReply, parse_reply
from cai.labelling.reply_cache import ReplyCache
from cai.labelling.server_profile import ServerProfile
from cai.labelling.transport import LARGEST_REPLY, NothingReceived, Received, Transport
from cai.terminal import one_line

log = logging.getLogger(__name__)

T = TypeVar("T")

WORKERS = 8
"""Requests that are under way at a time."""
FIRST_WAIT = 0.5
"""Seconds before the first retry; they double with each, up to ``LONGEST_WAIT``."""
LONGEST_WAIT = 30.0
PASSING = frozenset({408, 425, 429})
"""Statuses that a later attempt may change, besides nearly all from 500 on."""
REFUSALS = frozenset({400, 413, 422, 501})
"""Statuses that speak of one request: too long, filtered, or with a field that is not known."""
SHORTEST_SECRET = 8
"""A shorter key ("none", "EMPTY") only fills the field; a reply may well contain it."""
_KEY = re.compile(r"[!#-\[\]-~]+")
_LONGEST_WORDS = 2000


class Request(NamedTuple):
    """What is asked: a conversation, and the fields beside it."""

    conversation: Conversation
    options: Mapping[str, Any]


class Refused(Exception):
    """The server will not answer this request, but may answer others."""

    def __init__(self, words: str) -> None:
        """Keep what the server says; the message is a shorter form of it."""
        super().__init__(one_line(words))
        self.words = words


class _Passing(Exception):
    """An attempt failed in a way that another may not."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        """Say why, and for how many seconds the server asked to be left alone."""
        super().__init__(reason)
        self.wait = wait


class Endpoint:
    """One model behind one server; safe to use from several threads."""

    def __init__(self, settings: EndpointConfig, cache: Path) -> None:
        """Read the key from the environment.

        Raises:
            UserError: If the variable that should hold it is empty or holds something else.
        """
        self.settings, self.profile = settings, ServerProfile()
        address = (settings.url or "").rstrip("/")
        base = address if urlsplit(address).path else f"{address}/v1"
        self._address = f"{base}/chat/completions"
        self._key = _read_key(settings)
        headers = {"Content-Type": "application/json", "User-Agent": "cai"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        self._transport = Transport(self._address, headers, settings.timeout)
        self._cache = ReplyCache(cache)
        self._limit = RateLimit(settings.per_second)
        self._random = random.Random()  # jitter must not disturb the seeded generators

    def ask(self, request: Request) -> ServerReply:
        """Return the reply, from the cache if the same was asked before.

        Raises:
            Refused: If the server will not answer this request.
            UserError: If it gives no usable answer at all.
        """
        [reply] = self._run(self._ask, [request])
        return reply

    def ask_all(self, requests: Sequence[Request]) -> list[ServerReply | None]:
        """Ask in parallel; a request that the server refuses has no reply.

        Raises:
            UserError: If it refuses all of them, or gives no usable answer.
        """
        refusals: list[str] = []

        async def ask(client: httpx.AsyncClient, request: Request) -> ServerReply | None:
            try:
                return await self._ask(client, request)
            except Refused as refusal:
                refusals.append(str(refusal))
                return None

        replies = self._run(ask, requests)
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

    def _run(
        self, ask: Callable[[httpx.AsyncClient, Request], Awaitable[T]], requests: Sequence[Request]
    ) -> list[T]:
        """Do all requests in an event loop of their own, beside whatever loop there may be."""

        async def run() -> list[T]:
            found: dict[int, T] = {}
            queue = iter(enumerate(requests))

            async def work() -> None:
                for n, request in queue:
                    found[n] = await ask(client, request)

            try:
                async with self._transport.client() as client, anyio.create_task_group() as group:
                    for _ in range(WORKERS):
                        group.start_soon(work)
            except ExceptionGroup as errors:  # the first one has cancelled what was left
                raise errors.exceptions[0] from None
            return [found[n] for n in range(len(requests))]

        with start_blocking_portal() as portal:
            return portal.call(run)

    async def _ask(self, client: httpx.AsyncClient, request: Request) -> ServerReply:
        body = {
            "model": self.settings.model,
            "messages": to_messages(request.conversation),
            **self.profile.fit(request.options),
        }
        known: dict[str, Any] = {"address": self._address, "body": body}
        # A seed that the server is not told still tells samples apart.
        if unsaid := {k: v for k, v in request.options.items() if k in self.profile.without}:
            known["unsaid"] = unsaid
        if (kept := self._cache.find(known)) is not None:
            return kept
        reply = await self._send(client, json.dumps(body).encode())
        self._cache.keep(known, reply)
        return reply

    async def _send(self, client: httpx.AsyncClient, data: bytes) -> ServerReply:
        attempts, node = self.settings.retries + 1, self.settings.node
        retrying = AsyncRetrying(
            stop=stop_after_attempt(attempts),
            wait=self._backoff,
            retry=retry_if_exception_type(_Passing),
            sleep=anyio.sleep,
            reraise=True,
        )
        try:
            return await retrying(self._attempt, client, data)
        except _Passing as failure:
            raise UserError(
                f"{self._name} gave no answer in {attempts} attempts (the last one: {failure}): "
                f"start the server, correct the address, lower {node}.per_second, or raise "
                f"{node}.timeout or {node}.retries"
            ) from None

    def _backoff(self, state: RetryCallState) -> float:
        """Wait twice as long after each attempt, less up to a half by chance."""
        longest = wait_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT)(state)
        return longest * self._random.uniform(0.5, 1.0)

    async def _attempt(self, client: httpx.AsyncClient, data: bytes) -> ServerReply:
        await self._limit.wait()
        try:
            received = await self._transport.post(client, data)
            if not received.good:
                raise self._failure(received)
            return self._parse(received.body)
        except NothingReceived as error:
            failure = _Passing(self._foreign(str(error)))
        except (ValueError, RecursionError):
            failure = _Passing("its answer is not a chat completion")
        except _Passing as error:
            self._limit.pause(error.wait)
            failure = error
        log.debug("an attempt failed: %s", failure)
        raise failure

    def _parse(self, body: bytearray) -> ServerReply:
        """Read an answer; the key, should a server repeat it, does not get past here."""
        if len(body) > LARGEST_REPLY:
            raise ValueError("too long")
        value = json.loads(body.decode("utf-8"))
        plain = json.dumps(value, ensure_ascii=False)
        if self._key and len(self._key) >= SHORTEST_SECRET and self._key in plain:
            raise ValueError("it repeats the key")
        return parse_reply(value)

    def _failure(self, received: Received) -> Exception:
        """Choose what to do about a status that promises no answer."""
        status, settings, words = received.status, self.settings, self._words(received)
        # OpenAI's reasoning models forbid what others do not support.
        if status in REFUSALS or (status == 403 and "logprobs" in words):
            return Refused(words)
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
            return _Passing(f"status {status}", retry_after(received.headers.get("Retry-After")))
        return UserError(
            f"{self._name} answered with status {status} ({one_line(words)}): correct "
            f"{settings.node}"
        )

    def _words(self, received: Received) -> str:
        """Return what the server says about an error, without the key."""
        text = received.body.decode("utf-8", "replace")
        with suppress(ValueError, RecursionError):
            text = _message(json.loads(text)) or text
        return self._foreign(text) or f"status {received.status}"

    def _foreign(self, text: str) -> str:
        """Return foreign words fit to be shown: first made plain, so that no key is in disguise."""
        plain = one_line(text, 1 << 16)
        hidden = plain.replace(self._key, "[key]") if self._key else plain
        return hidden[:_LONGEST_WORDS].rstrip(".")


def _message(value: Any) -> str | None:
    """Find the words in one of the forms that servers give an error."""
    for name in ("error", "message", "detail"):
        if isinstance(value, dict) and value.get(name):
            found = value[name]
            return found if isinstance(found, str) else _message(found) or json.dumps(found)
    return None


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
