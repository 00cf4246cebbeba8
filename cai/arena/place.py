"""Where the arena listens."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass

from cai.errors import UserError


@dataclass(frozen=True)
class Place:
    """Where the arena is.

    Attributes:
        host: A name or address of this machine.
        port: A free port.
        password: That everybody must know; None on this machine alone.
    """

    host: str
    port: int
    password: str | None = None

    @property
    def address(self) -> str:
        """What to type into a browser."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


def is_local(host: str) -> bool:
    """Tell whether an address can be reached from this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(place: Place) -> socket.socket:
    """Take the port, so that nobody else can, before anything slow begins.

    Raises:
        UserError: If the port is in use, or the host is not this machine's.
    """
    taken: socket.socket | None = None
    try:
        kind = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)[0]
        taken = socket.socket(kind[0], kind[1])
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(kind[4])
        taken.listen()
    except OSError as error:
        if taken is not None:
            taken.close()
        raise UserError(
            f"--host={place.host} --port={place.port} can't be used ({error.strerror}): another "
            "program may have the port, so give a different one"
        ) from error
    return taken
