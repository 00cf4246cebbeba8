"""The page: one file, no network, every text of a model escaped, its own script named by hash."""

from __future__ import annotations

import base64
import csv
import hashlib
import html
import io
import json
from pathlib import Path

from cai.report.collect import Result
from cai.report.plots import COLOURS
from cai.report.sections import sections
from cai.report.tables import csv_rows

STYLE = """
:root{--ink:#1c2733;--soft:#5b6b7b;--paper:#fff;--line:#d9e0e7;--c0:#2b6cb0;--c1:#c05621;--c2:#2f855a;
--c3:#805ad5;--c4:#b7791f;--c5:#c53030;--c6:#0e7490;--c7:#a21caf;--c8:#4d7c0f;--c9:#64748b;--c10:#7c2d12;--c11:#312e81}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9fb0c0;--paper:#12181f;--line:#2c3946;
--c0:#63a4e8;--c1:#f0905a;--c2:#5fc08b;--c3:#b79cf2;--c4:#e2b04a;--c5:#f07c7c;--c6:#4cc9dd;--c7:#e58bee;--c8:#a3cf5f;--c9:#a9b4c2;--c10:#d9a08a;--c11:#9a9cf0}}
*{box-sizing:border-box}body{margin:0 auto;max-width:1080px;padding:1rem;background:var(--paper);
color:var(--ink);font:16px/1.5 system-ui,sans-serif}h1{font-size:1.6rem;margin:.5rem 0}
h2{font-size:1.2rem;margin:2.2rem 0 .5rem;border-bottom:1px solid var(--line)}h3{font-size:1rem;margin:1rem 0 .2rem}
p.note,figcaption{color:var(--soft);font-size:.9rem}.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.85rem}th,td{padding:.3rem .6rem;border-bottom:1px solid var(--line);
text-align:left;vertical-align:top;white-space:nowrap}td{font-variant-numeric:tabular-nums}th[data-sort]{cursor:pointer;white-space:nowrap}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:1rem}figure{margin:0}
svg{width:100%;max-width:640px;height:auto;font-size:12px;fill:var(--ink)}.axis{stroke:var(--soft);fill:none}.grid line,line.grid{stroke:var(--line)}
.guide{stroke:var(--soft);stroke-dasharray:4 4}polyline{fill:none;stroke-width:2}text.in{fill:#fff}
.key{margin-right:1rem;font-size:.85rem;white-space:nowrap}.key::before{content:"";display:inline-block;width:.8em;height:.8em;
margin-right:.35em;border-radius:2px}
.legend{margin:.1rem 0 0}.talk{border:1px solid var(--line);border-radius:6px;padding:.6rem;margin:.8rem 0}
.talk .sides{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,230px),1fr));gap:.8rem}
.say{white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:isolate}.who{color:var(--soft);font-size:.8rem}
details{margin:.5rem 0}summary{cursor:pointer}code{overflow-wrap:anywhere}
""" + "".join(
    f".s{n}{{stroke:var(--c{n})}}.f{n}{{fill:var(--c{n})}}.key.s{n}::before{{background:var(--c{n})}}"
    for n in range(COLOURS)
)

SCRIPT = """
document.querySelectorAll('th[data-sort]').forEach(function(head){head.addEventListener('click',function(){
var table=head.closest('table'),body=table.tBodies[0],i=head.cellIndex,up=head.dataset.sort!=='up';
head.dataset.sort=up?'up':'down';Array.from(body.rows).sort(function(a,b){
var x=a.cells[i].textContent,y=b.cells[i].textContent,m=parseFloat(x),n=parseFloat(y);
var d=isNaN(m)||isNaN(n)?x.localeCompare(y):m-n;return up?d:-d;}).forEach(function(r){body.appendChild(r);});});});
"""


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
    _write(out.with_suffix(".csv"), table.getvalue())
    _write(out.with_suffix(".json"), json.dumps(result.systems, indent=2) + "\n")
    _write(out, render(result))
    return out


def render(result: Result) -> str:
    """Return the whole page as text."""
    recipes = ", ".join(dict.fromkeys(str(run["recipe"]) for run in result.runs))
    policy = (
        "default-src 'none'; img-src data:; "
        f"style-src '{_digest(STYLE)}'; script-src '{_digest(SCRIPT)}'"
    )
    body = "\n".join(
        f'<section id="{key}"><h2>{html.escape(title)}</h2>{content}</section>'
        for key, title, content in sections(result)
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Constitutional AI: {html.escape(recipes)}</title>
<style>{STYLE}</style></head>
<body><h1>Constitutional AI: {html.escape(recipes)}</h1>
{body}
<script>{SCRIPT}</script></body></html>
"""


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _write(path: Path, text: str) -> None:
    scratch = path.with_name(path.name + ".tmp")
    scratch.write_text(text, encoding="utf-8")
    Path(scratch).replace(path)
