"""One HTTP request: bounded in seconds and bytes, never redirected, no proxy for local servers."""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field

import anyio
import httpx

from cai.errors import UserError

LARGEST_REPLY = 8 << 20
LARGEST_REFUSAL = 1 << 16
"""Bytes that are read of an answer, and of one that only says why there is none."""


@dataclass
class Received:
    """A response, or as much of one as came before it broke off."""

    status: int = 0
    headers: httpx.Headers = field(default_factory=httpx.Headers)
    body: bytearray = field(default_factory=bytearray)

    @property
    def good(self) -> bool:
        """Whether the status says that there is an answer."""
        return 200 <= self.status < 300


class NothingReceived(Exception):
    """There was no response, for a reason that may pass."""


class Transport:
    """Sends requests to one address."""

    def __init__(self, address: str, headers: Mapping[str, str], timeout: float) -> None:
        """Take the proxies and certificates of the environment.

        Args:
            address: Where requests go.
            headers: Of each; they may hold a key, so nothing here logs or repeats them.
            timeout: Seconds for a whole response, however it comes.

        Raises:
            UserError: If the environment names a proxy or certificates that can't be used.
        """
        for library in ("httpx", "httpcore"):  # they log each request, at DEBUG with its headers
            logging.getLogger(library).setLevel(logging.WARNING)
        self._headers = {**headers, "Accept-Encoding": "identity"}  # no archive that explodes
        self._timeout = timeout
        try:
            self._address = httpx.URL(address)
            self._certificates = httpx.create_ssl_context()
            self.client()
        except OSError as error:
            raise UserError(
                f"the certificates that SSL_CERT_FILE or SSL_CERT_DIR name can't be read "
                f"({error.strerror}): correct the variable or unset it"
            ) from None
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            socks = isinstance(error, ImportError)
            advice = "install httpx[socks], or" if socks else "correct them, or"
            raise UserError(
                f"{address} can't be reached with the proxies that HTTP_PROXY, HTTPS_PROXY, "
                f"ALL_PROXY and NO_PROXY name: {advice} unset them for this run"
            ) from None

    def client(self) -> httpx.AsyncClient:
        """Make what keeps connections open, for one event loop."""
        verify = self._certificates
        # With a transport of its own a client asks no proxy, and none would know this machine.
        local = httpx.AsyncHTTPTransport(verify=verify) if is_local(self._address.host) else None
        return httpx.AsyncClient(verify=verify, transport=local, timeout=None)

    async def post(self, client: httpx.AsyncClient, data: bytes) -> Received:
        """Send data and receive a response; one that breaks off is returned as far as it came.

        Raises:
            NothingReceived: If there is none, or no whole one in time.
        """
        got = Received()
        try:
            with anyio.fail_after(self._timeout):
                await self._receive(client, data, got)
        except TimeoutError:
            if not got.status or got.good:
                raise NothingReceived(f"nothing within {self._timeout:g} s") from None
        except httpx.HTTPError as error:
            if not got.status:
                raise NothingReceived(_reason(error)) from None
        return got

    async def _receive(self, client: httpx.AsyncClient, data: bytes, got: Received) -> None:
        sent = client.stream("POST", self._address, content=data, headers=self._headers)
        async with sent as response:
            got.status, got.headers = response.status_code, response.headers
            limit = LARGEST_REPLY if got.good else LARGEST_REFUSAL
            async for part in response.aiter_raw():
                got.body += part
                if len(got.body) > limit:
                    return


def is_local(host: str) -> bool:
    """Tell whether a host name or address means this machine."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _reason(error: BaseException) -> str:
    """Find what the operating system says, below the layers of the library."""
    layers = [error]
    for layer in layers:
        if isinstance(layer, OSError) and layer.errno:
            own = isinstance(layer, ssl.SSLError | socket.gaierror)  # numbers of their own
            return str(layer.strerror) if own else os.strerror(layer.errno)
        if isinstance(layer, BaseExceptionGroup):
            layers += layer.exceptions
        elif below := layer.__cause__ or layer.__context__:
            layers.append(below)
    return str(error) or type(error).__name__
