"""Seeds and draws that depend on what they are for, and on nothing that happened before."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


def seed_of(*parts: object) -> int:
    """Return a 63-bit seed that depends on every part and on nothing else."""
    digest = hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def draw(items: Sequence[Item], n: int, *key: object, replacement: bool = True) -> list[Item]:
    """Draw ``n`` items; the same key gives the same ones, in whatever order rows are made.

    Without replacement an item comes back only after all others have been drawn.
    """
    source = random.Random(seed_of("draw", *key))
    if replacement:
        return [source.choice(items) for _ in range(n)]
    drawn: list[Item] = []
    while len(drawn) < n:
        drawn += source.sample(items, len(items))
    return drawn[:n]
