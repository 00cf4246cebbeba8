"""Range checks that name the key, the value and what is allowed."""

from typing import Any

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
