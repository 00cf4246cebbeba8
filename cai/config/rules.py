"""Checks of texts that name the key and what is allowed."""

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from urllib.parse import urlsplit

from cai.errors import SecretError, UserError

_TELLING = re.compile(r"\s*[a-z][a-z0-9+.-]*://\S*[@?#]\S*\s*", re.IGNORECASE)
"""An address that may hold a secret: a name with a password, a query, what stands behind a #."""


def check_addresses(value: object, key: str = "") -> None:
    """Check that no text of a node is an address with a secret in it, whatever the key is for.

    Raises:
        SecretError: Names the key; a config is written down with all that it holds.
    """
    if isinstance(value, str):
        if _TELLING.fullmatch(value):
            raise SecretError(
                f"{key} holds an address with a name, a key or a query, which would be written "
                "down: leave these out; a key belongs into an environment variable"
            )
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            check_addresses(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for inner in value:
            check_addresses(inner, key)
    elif is_dataclass(value) and not isinstance(value, type):
        check_addresses({item.name: getattr(value, item.name) for item in fields(value)}, key)


def environment_variable(key: str, name: str) -> None:
    """Check a variable's name; the value is not repeated, for it may be the secret itself."""
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):
        raise SecretError(
            f"{key} must be the name of an environment variable (A to Z, 0 to 9 and _), not what "
            "it holds"
        )


def http_address(key: str, url: str) -> None:
    """Check the address of a server; one that may hold a secret is not repeated."""
    if re.search(r"[@?#]", url):
        raise SecretError(
            f"{key} must be an address without a name, a key or a query: a key belongs into an "
            "environment variable"
        )
    try:
        parts = urlsplit(url)
        known = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        known = False
    if not known or not re.fullmatch(r"[!-~]+", url):
        raise UserError(f"{key}={url} must look like http://localhost:8000 or https://host/v1")
