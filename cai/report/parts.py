"""The blocks that a page is made of; each is drawn by the template that has its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from markupsafe import Markup

from cai.report.cells import Cell
from cai.report.findings import Finding


@dataclass(frozen=True)
class Block:
    """Something on the page."""

    template: ClassVar[str]


@dataclass(frozen=True)
class Note(Block):
    """A paragraph of explanation."""

    template: ClassVar[str] = "note.html.j2"
    text: str


@dataclass(frozen=True)
class Heading(Block):
    """A heading within a section."""

    template: ClassVar[str] = "heading.html.j2"
    text: str


@dataclass(frozen=True)
class Bullets(Block):
    """Sentences one below the other."""

    template: ClassVar[str] = "bullets.html.j2"
    sentences: Sequence[str]


@dataclass(frozen=True)
class Table(Block):
    """A table that can be sorted, and becomes a list of cards on a narrow screen.

    Attributes:
        heads: Of the columns; the first names the rows.
        rows: Their cells.
        n: What its figures rest on.
    """

    template: ClassVar[str] = "table.html.j2"
    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    n: str


@dataclass(frozen=True)
class Facts(Block):
    """Names and values of a few things."""

    template: ClassVar[str] = "facts.html.j2"
    rows: Sequence[tuple[str, Cell]]


@dataclass(frozen=True)
class Figure(Block):
    """A drawing with its caption.

    Attributes:
        drawing: SVG whose texts are escaped; empty if there is nothing to draw.
        caption: What it shows.
        n: What it rests on.
        legend: Names of the series in the order of their colours; empty for a single one.
    """

    template: ClassVar[str] = "figure.html.j2"
    drawing: Markup
    caption: str
    n: str
    legend: Sequence[str] = ()


@dataclass(frozen=True)
class Grid(Block):
    """Blocks side by side, where there is room; texts need less of it than figures."""

    template: ClassVar[str] = "grid.html.j2"
    blocks: Sequence[Block]
    texts: bool = False


@dataclass(frozen=True)
class Fold(Block):
    """Blocks that can be folded away."""

    template: ClassVar[str] = "fold.html.j2"
    summary: str
    blocks: Sequence[Block]
    unfolded: bool = False


@dataclass(frozen=True)
class Findings(Block):
    """The lines of the summary."""

    template: ClassVar[str] = "findings.html.j2"
    findings: Sequence[Finding]


@dataclass(frozen=True)
class Said(Block):
    """Who says what; ``aside`` is a critique, which nobody is told."""

    template: ClassVar[str] = "said.html.j2"
    who: str
    text: str
    aside: bool = False


@dataclass(frozen=True)
class Section:
    """A part of the page that the list of contents leads to."""

    id: str
    title: str
    blocks: Sequence[Block] = field(default_factory=list)
