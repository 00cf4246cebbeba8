"""The page: one file, no network, every text escaped, its style and its script named by hash."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cai.files import write_json, write_text
from cai.jsonl import to_json
from cai.report.collect import Result
from cai.report.figures import COLOURS
from cai.report.names import system_name
from cai.report.sections import sections
from cai.report.tables import csv_rows
from cai.results.systems import SystemSummary

TEMPLATES = "templates"
ABOUT = (
    ("model.name", "model"),
    ("constitution.name", "constitution"),
    ("data.source", "data"),
    ("seed", "seed"),
)
"""Settings that are named below the title, where all runs agree on them."""


def write_report(result: Result, out: Path) -> Path:
    """Write the page and, beside it, its numbers as CSV and JSON.

    Args:
        result: What ``collect`` read.
        out: The HTML file.

    Returns:
        The HTML file.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    rows = csv_rows(result)
    table = io.StringIO()
    writer = csv.DictWriter(table, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write_text(out.with_suffix(".csv"), table.getvalue())
    systems = [SystemSummary(s.id, s.model, s.metrics) for s in result.systems]
    write_json(out.with_suffix(".json"), to_json(systems, list[SystemSummary]))
    write_text(out, render(result))
    return out


def render(result: Result) -> str:
    """Return the whole page as text."""
    environment = Environment(
        loader=PackageLoader("cai.report", TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    recipes = ", ".join(dict.fromkeys(system_name(run.recipe) for run in result.runs))
    return environment.get_template("page.html.j2").render(
        title=f"Constitutional AI: {recipes}",
        about=", ".join(_about(result)),
        policy=f"default-src 'none'; img-src data:; "
        f"style-src '{_digest(style())}'; script-src '{_digest(script())}'",
        style=Markup(style()),
        script=Markup(script()),
        sections=list(sections(result)),
        colours=COLOURS,
    )


@cache
def style() -> str:
    """Return the style sheet."""
    return _read("style.css")


@cache
def script() -> str:
    """Return the script, which sorts tables and unfolds all for the printer."""
    return _read("script.js")


def _about(result: Result) -> Iterator[str]:
    for key, name in ABOUT:
        values = {str(run.settings[key]) for run in result.runs if key in run.settings}
        if len(values) == 1:
            yield f"{name} {values.pop()}"
    if len(result.runs) > 1:
        yield f"{len(result.runs)} runs"


def _read(name: str) -> str:
    return (files("cai.report") / TEMPLATES / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
