"""Rows made in ordered shards: a kill loses at most one, and resuming repeats none."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cai import interrupt
from cai.artifacts import read_jsonl, write_jsonl

Row = dict[str, Any]


def make_rows(
    path: Path, n: int, size: int, make: Callable[[range], list[Row]], name: str
) -> list[Row]:
    """Make ``n`` rows shard by shard and join them into one file.

    A shard is sampled as one batch, so its rows come out the same whether or not the run was
    interrupted before it.

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
    rows: list[Row] = []
    with tqdm(total=n, desc=name, unit="row", leave=False) as bar:
        for start in range(0, n, size):
            shard = folder / f"{start:08d}.jsonl"
            interrupt.check()
            if not shard.exists():
                write_jsonl(shard, make(range(start, min(start + size, n))))
            rows += read_jsonl(shard)
            bar.update(min(size, n - start))
    write_jsonl(path, rows)
    shutil.rmtree(folder)
    return rows
