"""Mutates rows and files from outside, lets every reader read them, and counts what came of it.

    PYTHONPATH=tests python -m faults.rows [--rows 1500] [--seed 0]

Allowed are records that everything after can bear, and one sentence. Anything else is a failure:
a traceback, a message of several lines or of a length that nobody reads, a text that no tokenizer
takes, two prompts of one id, a reader that takes longer than ``SLOW`` seconds.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import fields, is_dataclass
from pathlib import Path

from faults.mutations import DATA, ROWS, place
from faults.readers import OTHERS, RULES, SETS

from cai.data.records import Prompt
from cai.data.values import LONGEST_TEXT
from cai.errors import UserError

SLOW = 60
LONGEST_MESSAGE = 1000
LINES = 21
"""Of a command that names each of the first bad rows."""
OUTCOMES = ("read", "refused", "failed")


def values_in(found):
    """Yield all values that records hold."""
    if is_dataclass(found):
        yield found
        found = [getattr(found, item.name) for item in fields(found)]
    if isinstance(found, dict):
        found = [*found, *found.values()]
    if isinstance(found, list | tuple):
        for item in found:
            yield from values_in(item)
    else:
        yield found


def complaint(found):
    """Say why records can't be borne; None if they can."""
    known = {}
    for value in values_in(found):
        if isinstance(value, str):
            value.encode()
            if len(value) > LONGEST_TEXT:
                return "a text beyond the bound"
        if isinstance(value, Prompt) and known.setdefault(value.id, value.conversation) != (
            value.conversation
        ):
            return "two prompts of one id"
    return None


def mutated(chance, reader, folder):
    """Write a mutated file; return the mutation's name and the path."""
    path = folder / reader.file
    kind = chance.choices([ROWS, DATA, [place]], [6, 5, 0.6])[0]
    mutate = chance.choice(kind)
    rows = mutate(chance, reader.rows) if kind is ROWS else reader.rows
    try:
        data = reader.write(rows)
    except (TypeError, ValueError, AttributeError, OverflowError):  # a format that can't hold it
        data = SETS[0].write(rows)
    path.write_bytes(mutate(chance, data) if kind is DATA else data)
    if kind[0] is place:
        place(chance, path)
    return mutate.__name__, path


def outcome(reader, path, bad):
    """Let a reader read; return what came of it, and why it is a failure."""
    try:
        found = reader.read(path, bad)
        said = complaint(found)
        return ("failed", said) if said else ("read", None)
    except UserError as error:
        message = str(error)
        lines = message.split("\n")
        if len(lines) > LINES or max(map(len, lines)) > LONGEST_MESSAGE:
            return "failed", f"a message of {len(message)} characters"
        return "refused", None
    except BaseException:  # noqa: BLE001
        return "failed", traceback.format_exc()


def attack(rows, seed=0):
    """Mutate so many rows.

    Returns:
        How often each mutation came to each outcome, and the failures in words.
    """
    counts, failures = Counter(), []
    for number in range(rows):
        chance = random.Random(f"{seed} {number}")
        reader = chance.choice(SETS if chance.random() < 0.5 else OTHERS)
        bad = chance.choice(RULES)
        folder = Path(tempfile.mkdtemp())
        started = time.monotonic()
        name, path = mutated(chance, reader, folder)
        result, why = outcome(reader, path, bad)
        if time.monotonic() - started > SLOW:
            result, why = "failed", "slow"
        shutil.rmtree(folder)
        counts[name, result] += 1
        if why:
            what = f"{name} of {reader.name} in {reader.file}, {bad.value}"
            failures.append(f"{number}: {what}: {why}")
    return counts, failures


def table(counts):
    """Return counts as lines of a table."""
    names = sorted({name for name, _ in counts})
    lines = [f"{'mutation':12} {'tried':>6} " + " ".join(f"{o:>8}" for o in OUTCOMES)]
    for name in [*names, "all"]:
        found = [sum(n for (m, r), n in counts.items() if r == o and name in {m, "all"})
                 for o in OUTCOMES]  # fmt: skip
        lines.append(f"{name:12} {sum(found):6} " + " ".join(f"{n:8}" for n in found))
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    counts, failures = attack(args.rows, args.seed)
    print("\n\n".join([*failures, table(counts)]))  # noqa: T201
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
