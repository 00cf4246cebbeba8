"""How long 100,000 comparisons take from a file to their sides, and in how much memory.

    /usr/bin/time -v python benchmarks/data.py [--rows 100000] [--format parquet] [--form messages]
                                               [--folder DIR]

The rows are made of random words in hh-rlhf's shape, by a process of its own, and named as
``data.files.helpful_pairs``; the other sets are the built-in ones. Reading starts from nothing, and
what is measured is the whole of it: digest, reading, checks, ids, the judge's share and the sides.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from made_rows import made_pair, made_words

from cai.composition import CONF, schema, typed
from cai.data.sources import load_corpus
from cai.dialogue import from_text, to_messages

BATCH = 5000


def rows_of(n: int, form: str) -> Iterator[dict[str, Any]]:
    """Yield made-up comparisons, as texts in the published form or as messages."""
    chance = random.Random(0)
    words = made_words(chance)
    for number in range(n):
        sides = made_pair(chance, words, huge=False)
        chosen, rejected = (
            side.replace("Human: ", f"Human: {number} ", 1) if form == "texts" else
            to_messages(from_text(side.replace("Human: ", f"Human: {number} ", 1)))
            for side in sides
        )  # fmt: skip
        yield {"chosen": chosen, "rejected": rejected}


def write(path: Path, n: int, form: str) -> None:
    """Write the rows, a batch at a time."""
    import pyarrow as pa
    from pyarrow import parquet

    rows, writer = list(rows_of(n, form)), None
    if path.suffix == ".parquet":
        for start in range(0, n, BATCH):
            table = pa.Table.from_pylist(rows[start : start + BATCH])
            writer = writer or parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def main() -> None:
    """Make the file, read it, and say what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--format", choices=["parquet", "jsonl"], default="parquet")
    parser.add_argument("--form", choices=["texts", "messages"], default="messages")
    parser.add_argument("--folder", type=Path, help="made there, or used if it is there")
    args = parser.parse_args()
    schema()
    with tempfile.TemporaryDirectory() as scratch:
        path = (args.folder or Path(scratch)) / f"{args.form}-{args.rows}.{args.format}"
        if not path.exists():
            maker = multiprocessing.get_context("spawn").Process(
                target=write, args=(path, args.rows, args.form)
            )
            maker.start()
            maker.join()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            keys = ["data=files", f"data.files.helpful_pairs.path={path}"]
            config = typed(compose("config", overrides=keys))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        started, worked = time.perf_counter(), time.process_time()
        corpus = load_corpus(config.data)
        seconds, work = time.perf_counter() - started, time.process_time() - worked
        size = path.stat().st_size / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    sides = [len(side) for side in (*corpus.helpful_pairs, *corpus.judge.helpfulness)]
    assert sum(sides) == args.rows
    print(f"{args.rows:,} comparisons, {args.form} in {size:.0f} MiB of {args.format}")
    print(f"read and divided in {seconds:.1f} s, {work:.1f} s of processor time")
    print(f"peak {peak:.2f} GiB, {before:.2f} of them before anything was read")


if __name__ == "__main__":
    main()
