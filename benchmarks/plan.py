"""How long the plan takes, and in how much memory, on many conversations of hh-rlhf's shape.

    /usr/bin/time -v python benchmarks/plan.py [--rows 34000] [--folder DIR] [key=value ...]

The rows are made of random words, as many turns and words as published ones have, one in 500 of
them beyond the context. A plan reads all data, counts what does not fit every stage that is to run,
and measures for two seconds how fast this machine is.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import resource
import tempfile
import time
from pathlib import Path

from made_rows import made_pair, made_words
from side_by_side import settings

from cai.contracts.table import stages
from cai.pipeline.plan import plan
from cai.pipeline.store import Store
from cai.run import describe, footprints

HUGE = 500
"""One row in so many is far longer than any context."""


def write_hh_shape(folder: Path, rows: int, seed: int = 0) -> None:
    """Write both subsets in the published format, half of the rows in each."""
    chance = random.Random(seed)
    lexicon = made_words(chance)
    for subset in ("harmless-base", "helpful-base"):
        (folder / subset).mkdir(parents=True, exist_ok=True)
        path = folder / subset / "train.jsonl.gz"
        with gzip.open(path, "wt", encoding="utf-8", compresslevel=1) as file:
            for number in range(rows // 2):
                chosen, rejected = made_pair(chance, lexicon, number % HUGE == HUGE - 1)
                file.write(json.dumps({"chosen": chosen, "rejected": rejected}) + "\n")


def main() -> None:
    """Make the data, plan, and say what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=34_000)
    parser.add_argument("--folder", type=Path, help="made there, or used if it is there")
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.folder or Path(scratch) / "hh"
        if not folder.exists():
            write_hh_shape(folder, args.rows)
        config = settings("data=hh_rlhf", f"data.folder={folder}", *args.overrides)
        started = time.perf_counter()
        steps = plan(config, Store(Path(scratch) / "artifacts"), stages())
        print(describe(steps, config, footprints(steps, config)))
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{args.rows:,} conversations: a plan in {seconds:.1f} s, peak {peak:.2f} GiB")


if __name__ == "__main__":
    main()
