"""Score replies with a preference model: ``python -m cai.score --pm DIR IN.jsonl OUT.jsonl``.

DIR is a result of the pm stage, ``outputs/artifacts/pm-...``, or the folder ``model`` or ``twin``
in it; the base model is the one that its record names. A row needs ``messages`` of which the last
is the assistant's, or a ``response`` and what came before it: ``messages``, or a ``prompt`` (the
human's words, or a dialogue ``Human: ... Assistant: ...``, or a list of messages). Rows are
written with ``score`` added, from which the PM's held-out mean is removed.

Nothing is scored unless every row can be read. OUT appears when all rows are done; until then they
are in OUT.partial, and the same command goes on from there. With --dtype fp32 the scores are those
that plain transformers gives in float32 to what ``python -m cai.export`` writes, to 1e-4.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from cai.command import check_room, command
from cai.config import Dtype, RowFormat
from cai.data.foreign import rows_of
from cai.data.rows import read_whole
from cai.data.source import Source
from cai.errors import UserError
from cai.files import flush, write_text

if TYPE_CHECKING:
    from cai.scorer import Scorer


def score_file(scorer: Scorer, source: Path, target: Path, size: int) -> int:
    """Score a file's replies; the target appears whole or not at all.

    Args:
        scorer: The preference model.
        source: JSONL to read.
        target: JSONL to write; may be the source.
        size: Rows that are scored together, and at most lost when a run is killed.

    Returns:
        The number of rows.

    Raises:
        UserError: If a file can't be read or written or rows are malformed.
    """
    if not target.parent.is_dir():
        raise UserError(f"{target.parent}: there is no such folder to write to.")
    try:
        count = check_rows(scorer, source)
        partial = target.with_name(target.name + ".partial")
        stamp = target.with_name(target.name + ".partial.key")
        key = _digest(f"{scorer.key} {_digest(source.read_bytes())} {size}".encode())
        done = _kept_rows(partial, source, size) if _belongs(partial, stamp, key) else 0
        write_text(stamp, key)
        _score_rest(scorer, source, partial, (done, count, size))
        partial.replace(target)
        flush(target.parent)
        stamp.unlink()
    except OSError as error:
        raise UserError(f"{error.filename or source}: {error.strerror}.") from error
    return count


def check_rows(scorer: Scorer, source: Path) -> int:
    """Count the rows of a file if each can be scored.

    Raises:
        UserError: Names every row that can't be, by its line.
    """
    return sum(read_whole(_file(source), lambda row: scorer.tree(row) is not None))


def _score_rest(
    scorer: Scorer, source: Path, partial: Path, progress: tuple[int, int, int]
) -> None:
    """Append the scores of the rows that are still to do."""
    done, count, size = progress
    rest = islice((row.value for row in rows_of(_file(source))), done, None)
    with (
        partial.open("a", encoding="utf-8") as out,
        tqdm(total=count, initial=done, desc="score", unit="row", leave=False, disable=None) as bar,
    ):
        while part := list(islice(rest, size)):
            out.writelines(scorer.scored(part))
            out.flush()
            os.fsync(out.fileno())
            bar.update(len(part))


def _belongs(partial: Path, stamp: Path, key: str) -> bool:
    """Tell whether an unfinished file is of the same rows and PM; another one is removed."""
    if stamp.is_file() and stamp.read_bytes() == key.encode():
        return True
    partial.unlink(missing_ok=True)
    return False


def _kept_rows(partial: Path, source: Path, size: int) -> int:
    """Cut an unfinished file behind its last sound part and return how many rows it has.

    A row is sound if it is that of the source with a score. Rows scored together are scored
    together again, so that a score has the same bits whether or not the run was interrupted.
    """
    if not partial.is_file():
        return 0
    with partial.open("rb+") as file:
        lengths = []
        for line, (_, asked) in zip(file, _lines(source), strict=False):
            if not _is_scored(line, asked):
                break
            lengths.append(len(line))
        kept = len(lengths) // size * size
        file.truncate(sum(lengths[:kept]))
    return kept


def _is_scored(line: bytes, asked: bytes) -> bool:
    """Tell whether a line is a row that was asked for, with its score."""
    try:
        row = json.loads(line)
        score = row.pop("score")
        known = {key: value for key, value in json.loads(asked).items() if key != "score"}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return False
    return line.endswith(b"\n") and isinstance(score, float) and row == known


def _lines(source: Path) -> Iterator[tuple[int, bytes]]:
    """Yield line numbers and lines; blank ones are passed over."""
    with source.open("rb") as file:
        yield from ((n, line) for n, line in enumerate(file, start=1) if line.strip())


def _file(source: Path) -> Source:
    return Source("IN", source, format=RowFormat.jsonl)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return command(lambda: _main(arguments))


def _main(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m cai.score", description="Add a preference model's score to each reply."
    )
    parser.add_argument("source", type=Path, metavar="IN.jsonl")
    parser.add_argument("target", type=Path, metavar="OUT.jsonl")
    parser.add_argument("--pm", type=Path, required=True, metavar="DIR", help="a pm-... result")
    parser.add_argument("--hardware", choices=["auto", "cpu", "gpu"], default="auto")
    parser.add_argument("--micro-tokens", type=int, metavar="N", help="in one forward pass")
    dtypes = [dtype.value for dtype in Dtype]
    parser.add_argument("--dtype", choices=dtypes, help="of the base, if not that of its training")
    parser.add_argument("--batch", type=int, default=256, metavar="ROWS", help="scored together")
    options = parser.parse_args(arguments)
    if options.batch < 1:
        parser.error(f"--batch={options.batch} must be at least 1")
    # Late, for it takes seconds, and a mistake on the command line is said at once.
    check_room()
    from cai.run import quieten
    from cai.scorer import load_scorer

    quieten()
    dtype = None if options.dtype is None else Dtype(options.dtype)
    scorer = load_scorer(options.pm, options.hardware, options.micro_tokens, dtype)
    score_file(scorer, options.source, options.target, options.batch)
    return 0


if __name__ == "__main__":
    sys.exit(main())
