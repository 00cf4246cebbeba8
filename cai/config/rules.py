"""Range checks that name the key, the value and what is allowed."""

import re
from typing import Any
from urllib.parse import urlsplit

from cai.errors import UserError


def within(key: str, value: Any, low: float, high: float, why: str = "") -> None:
    """Check a number against both ends of its range; a value that is still missing passes."""
    if isinstance(value, int | float) and not low <= value <= high:
        reason = f": {why}" if why else ""
        raise UserError(f"{key}={value} is out of range: it must be in [{low:g}, {high:g}]{reason}")


def at_least(key: str, value: Any, low: float) -> None:
    """Check a number against the low end of its range."""
    if isinstance(value, int | float) and value < low:
        raise UserError(f"{key}={value} is too small: it must be at least {low:g}")


def at_least_all(node: str, low: float, **values: Any) -> None:
    """Check several keys of a node against one low end."""
    for key, value in values.items():
        at_least(f"{node}.{key}", value, low)


def environment_variable(key: str, name: str) -> None:
    """Check a variable's name; the value is not repeated, for it may be the secret itself."""
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):
        raise UserError(
            f"{key} must be the name of an environment variable (A to Z, 0 to 9 and _), not what "
            "it holds"
        )


def http_address(key: str, url: str) -> None:
    """Check the address of a server; one that may hold a secret is not repeated."""
    if re.search(r"[@?#]", url):
        raise UserError(
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
