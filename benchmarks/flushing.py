"""What it costs to flush every kept file: a tour with and without, in alternating pairs.

``python benchmarks/flushing.py [pairs] [folder]`` runs ``model=tiny scale=tour`` as a command, once
with every flush and once with ``os.fsync`` left out, and prints seconds of the wall and of the
processor for both, how many flushes there were and how long they took in sum. The folder says which
disk is meant.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHILD = """
import json, os, sys, time
kept, spent = os.fsync, []
def timed(number):
    started = time.perf_counter()
    if sys.argv[1] == "with":
        kept(number)
    spent.append(time.perf_counter() - started)
os.fsync = timed
from cai.__main__ import main
said = sys.argv[2]
sys.argv = ["cai", *sys.argv[3:]]
code = main()
open(said, "w").write(json.dumps([len(spent), sum(spent)]))
sys.exit(code)
"""
TOUR = ("model=tiny", "scale=tour", "tracking=off", "hardware=cpu", "hardware.threads=1")


def tour(how: str, folder: Path) -> tuple[float, float, int, float]:
    """Run the tour; return seconds of the wall, of the processor, flushes and seconds in them."""
    outputs, said = folder / "outputs", folder / "said"
    shutil.rmtree(outputs, ignore_errors=True)
    words = [sys.executable, "-c", CHILD, how, str(said), *TOUR, f"outputs={outputs}"]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(words, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": "."})
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    work = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    flushes, seconds = json.loads(said.read_text())
    return wall, work, flushes, seconds


def main(pairs: int = 3, place: str | None = None) -> None:
    """Run the pairs and print a row for each, and the medians of the differences."""
    rows = []
    print(f"{'':6}{'wall':>9}{'processor':>11}{'flushes':>9}{'in them':>9}")
    for number in range(pairs):
        found = {}
        for how in ("with", "without") if number % 2 else ("without", "with"):
            with tempfile.TemporaryDirectory(dir=place) as folder:
                found[how] = tour(how, Path(folder))
            wall, work, flushes, seconds = found[how]
            print(f"{how:8}{wall:7.1f}{work:11.1f}{flushes:9}{seconds:9.2f}", flush=True)
        rows.append((found["with"][0] - found["without"][0], found["with"][1] - found["without"][1],
                     found["with"][3]))  # fmt: skip
    wall, work, seconds = (statistics.median(column) for column in zip(*rows, strict=True))
    print(f"medians: wall {wall:+.1f} s, processor {work:+.1f} s, in flushes {seconds:.2f} s")


if __name__ == "__main__":
    given = sys.argv[1:]
    main(int(given[0]) if given else 3, given[1] if len(given) > 1 else None)
