"""Files of one's own: where each set of the data is, and what its columns are called."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields

from omegaconf import MISSING

from cai.config.choices import RowFormat
from cai.config.content import reads_file
from cai.errors import UserError

NO_FILE = (
    "data=files names no file: give data.files.red_team.path, or that of another set, or use "
    "data=builtin"
)


@dataclass
class ColumnsConfig:
    """What a file calls the columns that are read; null: as they are called here."""

    id: str | None = MISSING
    kind: str | None = MISSING
    prompt: str | None = MISSING
    messages: str | None = MISSING
    response: str | None = MISSING
    chosen: str | None = MISSING
    rejected: str | None = MISSING
    probability: str | None = MISSING
    critique: str | None = MISSING
    revision: str | None = MISSING
    reasoning: str | None = MISSING
    worse: str | None = MISSING


@dataclass
class FileConfig:
    """Where the rows of one set are: a file, or a data set of a hub; neither: the built-in set."""

    path: str | None = reads_file()
    hub: str | None = MISSING
    revision: str | None = MISSING
    subset: str | None = MISSING
    split: str = MISSING
    format: RowFormat = MISSING
    columns: ColumnsConfig = field(default_factory=ColumnsConfig)

    @property
    def used(self) -> bool:
        """Tell whether it names rows."""
        return bool(self.path or self.hub)

    def check(self, key: str) -> None:
        """Refuse what contradicts itself.

        Args:
            key: The node.

        Raises:
            UserError: If both places are given, or a data set without its commit.
        """
        if self.path and self.hub:
            raise UserError(f"{key}.path and {key}.hub are both given: leave one of them null")
        if self.hub and not self.revision:
            raise UserError(
                f"{key}.hub={self.hub} needs {key}.revision: the commit of the data set, so that "
                "the same command reads the same rows"
            )
        if not self.hub and (self.revision or self.subset):
            raise UserError(f"{key}.revision and {key}.subset are of a data set: give {key}.hub")


@dataclass
class FilesConfig:
    """The sets of the data that may come from files."""

    red_team: FileConfig = field(default_factory=FileConfig)
    borderline: FileConfig = field(default_factory=FileConfig)
    helpful: FileConfig = field(default_factory=FileConfig)
    helpful_pairs: FileConfig = field(default_factory=FileConfig)
    harmless_pairs: FileConfig = field(default_factory=FileConfig)
    demonstrations: FileConfig = field(default_factory=FileConfig)
    judgements: FileConfig = field(default_factory=FileConfig)

    def used(self) -> Iterator[tuple[str, FileConfig]]:
        """Yield the sets that name rows, or something of where they are."""
        for item in fields(self):
            file = getattr(self, item.name)
            if file.used or file.revision or file.subset:
                yield item.name, file

    def check(self) -> None:
        """Refuse what contradicts itself, or names nothing.

        Raises:
            UserError: Names the key.
        """
        used = dict(self.used())
        for name, file in used.items():
            file.check(f"data.files.{name}")
        if not used:
            raise UserError(NO_FILE)
