"""Which numbers a key may have: said where the key is declared, checked in one place.

Whatever its bounds, no number of any node is NaN, and none is infinite unless its bounds say so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, field, fields, is_dataclass
from typing import Any

from omegaconf import MISSING

from cai.errors import UserError

MANY = 10**9
"""More prompts, tokens or steps than this nobody means."""
SEEDS = 2**63 - 1
"""The largest seed that every generator takes."""
_BOUNDS = "bounds"
_LONGEST = 40


@dataclass(frozen=True)
class Bounds:
    """A range of numbers.

    Attributes:
        low: Its lower end.
        high: Its upper end.
        above: Whether the lower end is outside.
        below: Whether the upper end is outside.
        why: What the number is, where that is not plain from its name.
    """

    low: float
    high: float
    above: bool = False
    below: bool = False
    why: str = ""

    def hold(self, value: float) -> bool:
        """Tell whether a number is inside; NaN never is."""
        over = self.low < value if self.above else self.low <= value
        return over and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        """Write the range as people do."""
        left, right = "(" if self.above else "[", ")" if self.below else "]"
        return f"{left}{_shown(self.low)}, {_shown(self.high)}{right}"


def number(
    low: float, high: float, *, above: bool = False, below: bool = False, why: str = ""
) -> Any:
    """Declare a setting that is a number, or a list of numbers, in a range.

    Args:
        low: Its lower end.
        high: Its upper end.
        above: Whether the lower end is outside.
        below: Whether the upper end is outside.
        why: What the number is, where that is not plain from its name.
    """
    return field(default=MISSING, metadata={_BOUNDS: Bounds(low, high, above, below, why)})


def count(low: int = 1, high: int = MANY, default: Any = MISSING) -> Any:
    """Declare a setting that says how many."""
    return field(default=default, metadata={_BOUNDS: Bounds(low, high)})


def bounds_of(item: Field[Any]) -> Bounds | None:
    """Return the bounds that a field was declared with."""
    return item.metadata.get(_BOUNDS)


def check_bounds(node: object, prefix: str = "") -> None:
    """Check every number of a node and of the nodes in it.

    Args:
        node: An instance of a schema's class.
        prefix: Its name; empty for the whole config.

    Raises:
        UserError: Names the first key that is outside, its value, and what is allowed.
    """
    if not is_dataclass(node) or isinstance(node, type):
        return
    for item in fields(node):
        key, value = f"{prefix}.{item.name}" if prefix else item.name, getattr(node, item.name)
        allowed = bounds_of(item) or Bounds(-math.inf, math.inf, above=True, below=True)
        for where, found in _numbers(value, key):
            if not allowed.hold(found):
                raise UserError(_refusal(where, found, allowed))
        for where, inner in _nodes(value, key):
            check_bounds(inner, where)


def _refusal(key: str, value: float, allowed: Bounds) -> str:
    if math.isinf(allowed.low) and math.isinf(allowed.high):
        return f"{key}={value} is not a finite number: give one that is"
    reason = f": {allowed.why}" if allowed.why else ""
    return f"{key}={_shown(value)} is out of range: it must be in {allowed}{reason}"


def _numbers(value: object, key: str) -> Iterator[tuple[str, float]]:
    """Yield the numbers in a value, with their keys; true and false are none."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield key, value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _numbers(inner, f"{key}.{name}")
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _numbers(inner, key)


def _nodes(value: object, key: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, list | tuple):
        for n, inner in enumerate(value):
            yield f"{key}.{n}", inner
    else:
        yield key, value


def _shown(value: float) -> str:
    """Write a number in few characters, powers of ten as such."""
    if isinstance(value, int) and abs(value) >= 10**_LONGEST:
        return f"{'-' if value < 0 else ''}(more than {_LONGEST} digits)"
    if value and value % 10**6 == 0:
        return f"{value:g}".replace("e+0", "e").replace("e+", "e")
    return f"{value:g}" if isinstance(value, float) and value.is_integer() else str(value)
