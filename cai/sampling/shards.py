"""Rows made in ordered shards: a kill loses at most one, and resuming repeats none."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cai import interrupt, parallel
from cai.artifacts import read_jsonl, write_jsonl

Row = dict[str, Any]


def make_rows(
    path: Path, n: int, size: int, make: Callable[[range], list[Row]], name: str
) -> list[Row]:
    """Make ``n`` rows shard by shard and join them into one file.

    A shard is sampled as one batch, so its rows come out the same whether or not the run was
    interrupted before it, and whichever process makes it.

    Args:
        path: The file of all rows.
        n: How many rows.
        size: Rows per shard.
        make: Makes the rows of a range of indices.
        name: For the progress bar.
    """
    folder = path.with_name(path.stem + ".shards")
    if path.exists():
        shutil.rmtree(folder, ignore_errors=True)  # left by a kill between the last two lines
        return read_jsonl(path)
    folder.mkdir(exist_ok=True)
    shards = {
        folder / f"{start:08d}.jsonl": range(start, min(start + size, n))
        for start in range(0, n, size)
    }
    missing = [(shard, part) for shard, part in shards.items() if not shard.exists()]
    quiet = not parallel.is_global_zero()
    with tqdm(total=n, desc=name, unit="row", leave=False, disable=quiet) as bar:
        bar.update(n - sum(len(part) for _, part in missing))
        for first in range(0, len(missing), parallel.world_size()):
            interrupt.check()
            group = missing[first : first + parallel.world_size()]
            made = parallel.spread(group, lambda own: [make(part) for _, part in own])
            for (shard, part), rows in zip(group, made, strict=True):
                write_jsonl(shard, rows)
                bar.update(len(part))
    rows = [row for shard in shards for row in read_jsonl(shard)]
    write_jsonl(path, rows)
    shutil.rmtree(folder)
    return rows
