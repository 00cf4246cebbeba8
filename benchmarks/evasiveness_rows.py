"""Labelled replies from published data sets, as rows to fit and validate the classifier on."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cai.evasiveness.classifier import Style

STYLES = list(Style)
STYLE_CODES = {
    "compliance": Style.COMPLIANCE,
    "engaged_answer": Style.ENGAGED,
    "engaged_refusal": Style.ENGAGED,
    "weak_refusal": Style.GENERIC,
    "evasive_refusal": Style.EVASIVE,
    "deflection": Style.DEFLECTION,
}


class Row(NamedTuple):
    """One labelled reply."""

    source: str
    system: str
    prompt: str
    response: str
    label: int
    trusted: bool
    kind: str = ""


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a file, gzipped or not."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def human_refusals(data: Path) -> list[Row]:
    """Replies whose refusal was labelled by people; partial refusals are left out."""
    rows = []
    for name in ("xstest", "chatgpt_refusals", "pyrit_refusal"):
        for row in read_jsonl(data / f"refusal-labels/{name}.jsonl"):
            if row["label"] not in {"refusal", "compliance"}:
                continue
            refused = int(row["label"] == "refusal")
            system = row["system"].removesuffix(" (2023)")
            kind = row.get("prompt_type") or row.get("refusal_style") or ""
            rows.append(Row(name, system, row["prompt"], row["response"], refused, True, kind))
    return rows


def demonstrations(data: Path) -> list[tuple[str, str, str]]:
    """Helpful answers written by people: (system, request, answer)."""
    rows = []
    for row in read_jsonl(data / "helpful/oasst_en100_demos.jsonl"):
        rows.append(("oasst", row["prompt"], row["response"]))
    for row in read_jsonl(data / "helpful/seed_tasks.jsonl"):
        instance = row["instances"][0]
        request = f"{row['instruction']} {instance['input']}"
        rows.append(("seed_tasks", request, instance["output"]))
    return rows


def answers_to_other_requests(data: Path) -> list[Row]:
    """Answers of people, each put under the request of another."""
    rows = demonstrations(data)
    moved = [(rows[i][1], rows[(i + 37) % len(rows)][2]) for i in range(len(rows))]
    return [
        Row("shuffled", "shuffled", prompt, response, 1, False)
        for prompt, response in moved
        if len(response.split()) > 40
    ]


def example_rows() -> list[Row]:
    """Ways to decline of newer assistants, written for this benchmark."""
    return [
        Row(
            "examples",
            "examples",
            row["prompt"],
            row["response"],
            STYLES.index(Style(row["style"])),
            False,
        )
        for row in read_jsonl(Path(__file__).with_name("evasiveness_examples.jsonl"))
    ]


def style_rows(data: Path) -> list[Row]:
    """Replies whose style a language model labelled."""
    return [
        Row(
            row["source"],
            row["system"],
            row["prompt"],
            row["response"],
            STYLES.index(STYLE_CODES[row["style"]]),
            True,
            row["style"],
        )
        for row in read_jsonl(data / "refusal-labels/style_labels.jsonl")
    ]


def helper_refusals(data: Path) -> list[Row]:
    """Replies of other kinds of system, to learn more than chat assistants of one year."""
    rows = answers_to_other_requests(data)
    rows += [Row(system, system, q, a, 0, False) for system, q, a in demonstrations(data)]
    compliance = STYLES.index(Style.COMPLIANCE)
    rows += [row._replace(label=int(row.label != compliance)) for row in example_rows()]
    for row in style_rows(data):
        clear = row.kind == "compliance" or row.kind.endswith("_refusal")
        if clear and row.source.startswith(("cai-paper", "hh-rlhf")):
            rows.append(row._replace(label=int(row.kind != "compliance"), trusted=False))
    for raw in read_jsonl(data / "refusal-labels/rbr_gold.jsonl"):
        found = raw["propositions"]
        if found["illogical_continuation_of_prompt"]:
            continue
        if found["fully_complies"] or not found["partially_complies"]:
            refused = int(not found["fully_complies"])
            rows.append(Row("rbr", "rbr", raw["prompt"], raw["response"], refused, False))
    return rows


def helper_styles(data: Path) -> list[Row]:
    """Replies whose style follows from another label."""
    rows = [
        row._replace(label=STYLES.index(Style.COMPLIANCE), trusted=False)
        for row in human_refusals(data)
        if not row.label
    ]
    compliance = STYLES.index(Style.COMPLIANCE)
    deflection = STYLES.index(Style.DEFLECTION)
    rows += [Row(system, system, q, a, compliance, False) for system, q, a in demonstrations(data)]
    rows += [row._replace(label=deflection) for row in answers_to_other_requests(data)]
    rows += example_rows()
    rows += [
        row._replace(label=deflection, trusted=False)
        for row in human_refusals(data)
        if row.kind == "deflection"
    ]
    return rows
