"""Drawings of matplotlib as SVG that takes its colours and its font from the page.

What matplotlib writes sets every colour and font by a ``style`` attribute, which the page's content
security policy forbids and which could not follow the reader's colour scheme. Here every colour is
``currentColor``, a group gets the class that its artist was marked with, and fonts are left to the
style sheet.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from markupsafe import Markup

if TYPE_CHECKING:  # it takes a second to import, and only who draws needs it
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 400
"""Points, which are the units of the drawing: texts stay readable on a telephone."""
SETTINGS: dict[Any, object] = {
    "svg.fonttype": "none",  # texts as texts
    "text.parse_math": False,  # a $ in a name is a $
    "font.size": 11,
    "font.family": ["DejaVu Sans"],  # comes with matplotlib: the same layout everywhere
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 2,
    "lines.markersize": 6,
}
_NOT_IN_XML = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_KEPT = ("stroke-width", "stroke-dasharray", "stroke-linecap", "stroke-linejoin", "text-anchor")
_LINK = "{http://www.w3.org/1999/xlink}href"


@dataclass(frozen=True)
class _Mark:
    css: str
    title: str


@dataclass
class Canvas:
    """A figure in the making; marked artists get a class and, where it has one, a title."""

    figure: Figure
    axes: Axes
    _marks: dict[str, _Mark] = field(default_factory=dict)

    def mark(self, artist: Artist, css: str, title: str = "") -> None:
        """Give an artist its class, and words that are shown where one points at it."""
        gid = f"mark-{len(self._marks)}"
        artist.set_gid(gid)
        self._marks[gid] = _Mark(css, plain(title))

    def svg(self, title: str) -> Markup:
        """Return the drawing; the title says what it shows to those who can't see it."""
        self._mark_frame()
        written = io.StringIO()
        self.figure.savefig(written, format="svg", transparent=True)
        root = _plain_names(ElementTree.fromstring(written.getvalue()))
        _clean(root, self._marks)
        for name in ("width", "height", "version"):
            root.attrib.pop(name, None)
        root.set("role", "img")
        root.set("aria-label", plain(title))
        ElementTree.indent(root, space="")
        return Markup(ElementTree.tostring(root, encoding="unicode"))

    def _mark_frame(self) -> None:
        for axis in (self.axes.xaxis, self.axes.yaxis):
            for line in axis.get_gridlines():
                self.mark(line, "gridline")
        for spine in self.axes.spines.values():
            self.mark(spine, "axis")


@contextmanager
def canvas(height: float, key: str) -> Iterator[Canvas]:
    """Yield a figure of the page's width; texts and lines added to it look alike on the page.

    Args:
        height: Points.
        key: Sets the ids of this drawing apart from those of others on the page.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context({**SETTINGS, "svg.hashsalt": key}):
        figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72, layout="constrained")
        FigureCanvasSVG(figure)
        yield Canvas(figure, figure.add_subplot())


def plain(text: str) -> str:
    """Return a text on one line, without characters that XML can't hold."""
    return _NOT_IN_XML.sub("\ufffd", " ".join(text.split()))


def _plain_names(root: ElementTree.Element) -> ElementTree.Element:
    """Drop namespaces: the parser of HTML knows SVG by itself."""
    for node in root.iter():
        node.tag = node.tag.rpartition("}")[2]
        if link := node.attrib.pop(_LINK, None):
            node.set("href", link)
    return root


def _clean(root: ElementTree.Element, marks: dict[str, _Mark]) -> None:
    """Replace styles and ids, all the way down."""
    used = {node.get("href", "")[1:] for node in root.iter("use")}
    used |= {node.get("clip-path", "")[len("url(#") : -1] for node in root.iter()}
    for node in root.iter():
        for child in [c for c in node if c.tag in {"metadata", "style"}]:
            node.remove(child)
        gid = node.get("id", "")
        if gid not in used:
            node.attrib.pop("id", None)
        _restyle(node)
        if gid in marks:
            _dress(node, marks[gid])


def _dress(node: ElementTree.Element, mark: _Mark) -> None:
    node.set("class", mark.css)
    if mark.title:
        title = ElementTree.Element("title")
        title.text = mark.title
        node.insert(0, title)


def _restyle(node: ElementTree.Element) -> None:
    """Turn a style into attributes, with the page's colour for every colour."""
    style = node.attrib.pop("style", "")
    rules: dict[str, Any] = dict(
        [part.strip() for part in rule.split(":", 1)] for rule in style.split(";") if ":" in rule
    )
    for name in ("fill", "stroke"):
        if name in rules:
            node.set(name, "none" if rules[name] == "none" else "currentColor")
    for name in _KEPT:
        if name in rules:
            node.set(name, rules[name])
