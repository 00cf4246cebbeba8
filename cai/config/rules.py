"""Checks of texts that name the key and what is allowed."""

import re
from urllib.parse import urlsplit

from cai.errors import SecretError, UserError


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
