"""Rows made in ordered shards: a kill loses at most one, and resuming repeats none."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tqdm import tqdm

from cai import interrupt, parallel
from cai.files import remove
from cai.jsonl import Rows
from cai.parts import SHARDS

T = TypeVar("T")


def make_rows(
    file: Rows[T], n: int, size: int, make: Callable[[range], list[T]], name: str
) -> list[T]:
    """Make ``n`` rows shard by shard and join them into one file.

    A shard is sampled as one batch, so its rows come out the same whether or not the run was
    interrupted before it, and whichever process makes it.

    Args:
        file: The file of all rows.
        n: How many rows.
        size: Rows per shard.
        make: Makes the rows of a range of indices.
        name: For the progress bar.
    """
    folder = file.path.with_name(file.path.stem + SHARDS)
    if file.exists():
        remove(folder)  # left by a kill between the last two lines
        return file.read()
    folder.mkdir(exist_ok=True)
    shards = [
        (Rows(folder / f"{start:08d}.jsonl", file.kind), range(start, min(start + size, n)))
        for start in range(0, n, size)
    ]
    missing = [(shard, part) for shard, part in shards if not shard.exists()]
    quiet = not parallel.is_global_zero()
    with tqdm(total=n, desc=name, unit="row", leave=False, disable=quiet) as bar:
        bar.update(n - sum(len(part) for _, part in missing))
        for first in range(0, len(missing), parallel.world_size()):
            interrupt.check()
            group = missing[first : first + parallel.world_size()]
            made = parallel.spread(group, lambda own: [make(part) for _, part in own])
            for (shard, part), rows in zip(group, made, strict=True):
                shard.write(rows)
                bar.update(len(part))
    rows = [row for shard, _ in shards for row in shard.read()]
    file.write(rows)
    remove(folder)
    return rows
