"""Break things and see what holds: ``python -m tests.faults writes partial store kills disks``.

A few of each kind, as in CI, where ``short`` does those that need no more than a compiler. With
``--long`` all of them, which takes hours on one core.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from .lab import BAD, Lab, preloaded
from .trials import TRIALS, table

SHORT = ("writes", "partial", "store")
SAID = 1500
"""Characters of what a child said that did not hold."""
FEW = {"writes": 5, "partial": 4, "store": 2, "kills": 2, "disks": 2}
"""Trials of each kind in the short form."""
SHOWN = 10.0
"""Seconds between two looks at how far it is."""


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("trials", nargs="+", choices=[*TRIALS, "short"])
    parser.add_argument("--long", action="store_true", help="every one instead of a few")
    parser.add_argument("--minutes", type=float, help="stop each kind after so many")
    parser.add_argument("--seed", type=int, default=0, help="of the order in which they are tried")
    parser.add_argument("--only", default="", help="those whose name has this in it")
    parser.add_argument(
        "--share",
        type=_share,
        default=(0, 1),
        metavar="I/N",
        help="the I-th of N parts, to try all of them on as many cores",
    )
    parser.add_argument("--folder", type=Path, help="where to work; kept for the next time")
    options = parser.parse_args()
    shim = preloaded()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="cai-faults-"))
    folder.mkdir(exist_ok=True)
    os.environ.setdefault("WANDB_MODE", "offline")
    try:
        lab = Lab(shim, folder)
        lab.made()
        names = [n for name in options.trials for n in (SHORT if name == "short" else (name,))]
        return max(_run(name, lab, options) for name in names)
    finally:
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)


def _share(word):
    """Read I/N, counted from 1."""
    first, parts = map(int, word.split("/"))
    if not 1 <= first <= parts:
        raise ValueError(word)
    return first - 1, parts


def _run(name, lab, options):
    """Go through the trials of one kind, in any order; return 1 if one did not hold."""
    started = shown = time.monotonic()
    trials = [one for one in TRIALS[name](lab, options.long) if options.only in one[0]]
    total, counts, bad = len(trials), Counter(), 0
    random.Random(options.seed).shuffle(trials)
    first, parts = options.share
    for label, trial in trials[first::parts] if options.long else trials[: FEW[name]]:
        outcome = trial()
        counts[label, outcome] += 1
        if outcome in BAD:
            bad += 1
            sys.stdout.write(f"  {label}: {outcome}: {trial.args[1:]}\n{lab.last.text[-SAID:]}\n")
        now = time.monotonic()
        if now - shown > SHOWN:
            sys.stdout.write(f"{name}: {counts.total()} of {total}, {now - started:.0f} s\n")
            sys.stdout.flush()
            shown = now
        if options.minutes and now - started > 60 * options.minutes:
            break
    tried = f"{counts.total()} of {total} tried, {bad} not held"
    sys.stdout.write(f"\n{name}: {tried}\n{table(counts)}\n")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
