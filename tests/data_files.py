"""Rows in every form, and files of every format to put them in."""

import csv
import gzip
import io
import json

TALK = [
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "Two."},
    {"role": "user", "content": "Three?"},
]


def said(text):
    return [{"role": "assistant", "content": text}]


def asked(text):
    return [{"role": "user", "content": text}]


def dialogue(question, reply):
    return f"\n\nHuman: {question}\n\nAssistant: {reply}"


PROMPTS = {
    "text": lambda n: {"prompt": f"Question {n}?"},
    "published text": lambda n: {"prompt": f"\n\nHuman: Question {n}?\n\nAssistant:"},
    "prompt as messages": lambda n: {"prompt": asked(f"Question {n}?")},
    "messages": lambda n: {"messages": asked(f"Question {n}?")},
    "messages with a reply": lambda n: {"messages": asked(f"Question {n}?") + said("No.")},
    "chosen and rejected": lambda n: {
        "chosen": dialogue(f"Question {n}?", "a"), "rejected": dialogue(f"Question {n}?", "b")},
}  # fmt: skip
EXAMPLES = {
    "prompt and response": lambda n: {"prompt": f"Question {n}?", "response": f"Reply {n}."},
    "prompt and completion": lambda n: {"prompt": f"Question {n}?", "completion": f"Reply {n}."},
    "messages": lambda n: {"messages": asked(f"Question {n}?") + said(f"Reply {n}.")},
    "completion as messages": lambda n: {
        "prompt": asked(f"Question {n}?"), "completion": said(f"Reply {n}.")},
    "published text": lambda n: {"messages": dialogue(f"Question {n}?", f"Reply {n}.")},
    "chosen and rejected": lambda n: {
        "chosen": dialogue(f"Question {n}?", f"Reply {n}."),
        "rejected": dialogue(f"Question {n}?", "b")},
}  # fmt: skip
PAIRS = {
    "texts": lambda n: {
        "prompt": f"Question {n}?", "chosen": f"Good {n}.", "rejected": f"Bad {n}."},
    "messages": lambda n: {
        "prompt": asked(f"Question {n}?"),
        "chosen": said(f"Good {n}."),
        "rejected": said(f"Bad {n}.")},
    "whole messages beside a prompt": lambda n: {
        "prompt": f"Question {n}?",
        "chosen": asked(f"Question {n}?") + said(f"Good {n}."),
        "rejected": asked(f"Question {n}?") + said(f"Bad {n}.")},
    "implicit prompt in messages": lambda n: {
        "chosen": asked(f"Question {n}?") + said(f"Good {n}."),
        "rejected": asked(f"Question {n}?") + said(f"Bad {n}.")},
    "published texts": lambda n: {
        "chosen": dialogue(f"Question {n}?", f"Good {n}."),
        "rejected": dialogue(f"Question {n}?", f"Bad {n}.")},
    "published texts of Windows": lambda n: {
        "chosen": dialogue(f"Question {n}?", f"Good {n}.").replace("\n", "\r\n"),
        "rejected": dialogue(f"Question {n}?", f"Bad {n}.").replace("\n", "\r\n")},
    "published texts beside a prompt": lambda n: {
        "prompt": f"\n\nHuman: Question {n}?\n\nAssistant:",
        "chosen": dialogue(f"Question {n}?", f"Good {n}."),
        "rejected": dialogue(f"Question {n}?", f"Bad {n}.")},
    "built-in": lambda n: {
        "id": f"q{n}", "kind": "k", "messages": asked(f"Question {n}?"), "chosen": f"Good {n}.",
        "rejected": f"Bad {n}."},
}  # fmt: skip


def lines_of(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def table_of(rows, delimiter=","):
    """Write a table; lists are JSON in their cells."""
    file = io.StringIO(newline="")
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = csv.DictWriter(file, names, delimiter=delimiter)
    table.writeheader()
    for row in rows:
        table.writerow({k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()})
    return file.getvalue().encode()


def parquet_of(rows):
    import pyarrow as pa
    from pyarrow import parquet

    sink = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


FORMATS = {
    "rows.jsonl": lines_of,
    "rows.jsonl.gz": lambda rows: gzip.compress(lines_of(rows)),
    "packed.jsonl": lambda rows: gzip.compress(lines_of(rows)),
    "marked.jsonl": lambda rows: b"\xef\xbb\xbf" + lines_of(rows),
    "list.json": lambda rows: json.dumps(rows, indent=1).encode(),
    "rows.csv": table_of,
    "marked.csv": lambda rows: b"\xef\xbb\xbf" + table_of(rows),
    "rows.csv.gz": lambda rows: gzip.compress(table_of(rows)),
    "rows.tsv": lambda rows: table_of(rows, "\t"),
    "rows.parquet": parquet_of,
    "nameless": parquet_of,
}
