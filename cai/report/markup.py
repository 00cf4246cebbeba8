"""Pieces of HTML: tables, figures, and the one way in which a text gets onto the page."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from cai.report.plots import Series, plot


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Draw a table that sorts by the column whose head is clicked."""
    head = "".join(f'<th data-sort="">{say(h)}</th>' for h in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{say(value)}</td>" for value in row) + "</tr>" for row in rows
    )
    drawn = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll">{drawn}</div>'


def figure(drawn: str, caption: str) -> str:
    """Put a caption below a drawing."""
    return f"<figure>{drawn}<figcaption>{say(caption)}</figcaption></figure>"


def note(text: str) -> str:
    """Write a paragraph of explanation."""
    return f'<p class="note">{say(text)}</p>'


def reliability(bins: Sequence[dict[str, Any]]) -> str:
    """Draw predicted probabilities against how often they came true."""
    series = Series("observed", [b["confidence"] for b in bins], [b["frequency"] for b in bins])
    return plot([series], "predicted probability", "observed frequency", diagonal=True)


def number(value: float | None) -> str:
    """Write a number with three decimals, a count as it is, and nothing for None."""
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def say(text: object) -> str:
    """Escape a text; everything that a model or a file says goes through here."""
    return html.escape(str(text), quote=True)
