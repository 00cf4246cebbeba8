"""Columns of Arrow: parquet files, and data sets of a hub at a revision."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from cai.errors import UserError

BATCH = 500
"""Rows that are in memory as they stand in the file."""

Names = Callable[[Sequence[str]], list[str] | None]
"""Chooses columns of those that there are."""
Found = tuple[Any, str | None]
"""A row, or None and what is wrong with it."""


@dataclass(frozen=True)
class HubSet:
    """A data set of a hub.

    Attributes:
        name: ``owner/name``.
        revision: Its commit; None: as it is now.
        split: Such as ``train``.
        part: What else chooses a part of it: ``name`` or ``data_dir``.
    """

    name: str
    revision: str | None
    split: str
    part: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Name it in messages."""
        return "/".join([self.name, *self.part.values()])


def parquet_rows(file: IO[bytes], choose: Names) -> Iterator[Found]:
    """Yield the rows of a parquet file.

    Raises:
        ValueError: If it is none.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(file) as table:
            columns = choose(table.schema_arrow.names)
            for batch in table.iter_batches(batch_size=BATCH, columns=columns):
                yield from _rows(batch)
    except (pa.ArrowException, OSError, RuntimeError) as error:
        raise ValueError(f"as parquet: {error}") from error


def arrow_rows(source: HubSet, choose: Names) -> Iterator[Found]:
    """Yield the rows of a data set of a hub, which is fetched once.

    Raises:
        UserError: If it can't be had.
    """
    import httpx
    from datasets import exceptions, load_dataset

    try:
        table = load_dataset(
            source.name, revision=source.revision, split=source.split, **source.part
        )
    except (OSError, ValueError, RuntimeError, httpx.HTTPError, exceptions.DatasetsError) as error:
        raise UserError(
            f"{source} at revision {source.revision} could not be loaded ({type(error).__name__}): "
            "check its name, split and revision and connect to the hub once, or give a file"
        ) from error
    columns = choose(table.column_names)
    if columns is not None:
        table = table.select_columns(columns)
    for part in table.with_format("arrow").iter(BATCH):
        yield from _rows(part)


def _rows(batch: Any) -> Iterator[Found]:
    """Turn a batch into objects; where a text is none, row by row."""
    try:
        rows = batch.to_pylist()
    except (ValueError, OverflowError):
        yield from (_row(batch.slice(number, 1)) for number in range(batch.num_rows))
        return
    yield from ((row, None) for row in rows)


def _row(batch: Any) -> Found:
    try:
        return batch.to_pylist()[0], None
    except UnicodeDecodeError:
        return None, "is not UTF-8 text"
    except (ValueError, OverflowError):
        return None, "holds a value that Python has no type for"
