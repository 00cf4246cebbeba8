"""Comparisons that a setting names beside the corpus, in any form."""

from __future__ import annotations

from pathlib import Path

from cai.config import BadRows
from cai.data.forms import PROMPT, SIDES, Forms
from cai.data.records import Comparison
from cai.data.rows import Placed, read_placed, some
from cai.data.source import Source

SOURCE = "pretrain"
"""The kind of comparison that such a file holds."""
READ = (*PROMPT, *SIDES, "probability")


def read_pairs(path: Path, key: str, bad: BadRows) -> list[Placed[Comparison]]:
    """Read comparisons with the file and line of each.

    ``probability``, that the chosen reply is the better one, may be left out and is then 1.

    Args:
        path: Of the file.
        key: The setting that names it.
        bad: What becomes of rows that can't be used.

    Raises:
        UserError: At a row that is malformed, with file and line, or if there is none.
    """
    source = Source(key, path, wanted=READ, hint="give comparisons, or null")
    forms = Forms(kind=SOURCE, source=SOURCE)
    records = read_placed(source, forms.comparison, bad)
    some(source, records)
    return records
