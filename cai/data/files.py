"""``data=files``: one file or data set of a hub per set, in the forms that people have."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from typing import Any

from cai.config import DataConfig, FileConfig
from cai.config.content import located
from cai.config.data import NO_FILE
from cai.data.folder import read_folder
from cai.data.forms import COLUMNS, Forms
from cai.data.hub import HubSet
from cai.data.rows import read_rows, some
from cai.data.sets import Sets, without_repeats
from cai.data.source import Source
from cai.errors import UserError

log = logging.getLogger(__name__)

WAYS: dict[str, tuple[str, Callable[[Forms], Callable[[Any], Any]]]] = {
    "red_team": ("", lambda forms: forms.prompt),
    "borderline": ("", lambda forms: forms.prompt),
    "helpful": ("", lambda forms: forms.example),
    "helpful_pairs": ("helpful", lambda forms: forms.comparison),
    "harmless_pairs": ("harmless", lambda forms: forms.comparison),
    "demonstrations": ("", lambda forms: forms.demonstration),
    "judgements": ("judgement", lambda forms: forms.comparison),
}
"""What comparisons of a set are said to be from, and how its records are made."""


def read_files(config: DataConfig) -> Sets:
    """Read the sets that ``data.files`` names; the others are built in, and that is said.

    Raises:
        UserError: If a file can't be read, has no rows, lacks a column, or has a row that can't be
            used and ``data.bad_rows=strict``.
    """
    if config.files is None:
        raise UserError(NO_FILE)
    named = {item.name: getattr(config.files, item.name) for item in fields(config.files)}
    given: dict[str, Any] = {
        name: _read(config, name, file) for name, file in named.items() if file.used
    }
    missing = [name for name in named if name not in given]
    if missing:
        log.info("data.files has no %s: the built-in ones are used", ", ".join(missing))
    for name in ("red_team", "borderline"):
        if name in given:
            given[name] = without_repeats(given[name])
    teach = "judgements" in given or "harmless_pairs" not in given
    return replace(read_folder(), teach=teach, **given)


def _read(config: DataConfig, name: str, file: FileConfig) -> list[Any]:
    source = source_of(name, file)
    kind, way = WAYS[name]
    forms = Forms(kind=name, source=kind, prefix=f"{name}-")
    return list(some(source, read_rows(source, way(forms), config.bad_rows)))


def source_of(name: str, file: FileConfig) -> Source:
    """Say where the rows of a set are."""
    columns = {ours: theirs for ours, theirs in asdict(file.columns).items() if theirs}
    node = f"data.files.{name}"
    if file.path:
        return Source(
            f"{node}.path", located(file.path), None, file.format, columns, COLUMNS,
            hint="give a file with rows, or null for the built-in set",
        )  # fmt: skip
    part = {"name": file.subset} if file.subset else {}
    hub = HubSet(str(file.hub), file.revision, file.split, part)
    return Source(f"{node}.hub", None, hub, columns=columns, wanted=COLUMNS)
