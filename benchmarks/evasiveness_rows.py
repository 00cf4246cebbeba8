"""Labelled replies from published data sets, as rows to fit and validate the classifier on."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cai.data.splits import side
from cai.dialogue import from_messages, to_text
from cai.evasiveness.classifier import Style

BUILT_IN = Path(__file__).parents[1] / "cai" / "data" / "builtin"
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


def example_rows(file: str = "evasiveness_examples.jsonl") -> list[Row]:
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
        for row in read_jsonl(Path(__file__).with_name(file))
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


class Case(NamedTuple):
    """One reply with what is known of it; a label of -1 is not known.

    ``held`` are texts of this project that are not on the train side: nothing is learnt from them.
    """

    source: str
    system: str
    prompt: str
    response: str
    refusal: int
    style: int
    held: bool = False


COMPLIANCE, ENGAGED, GENERIC, DEFLECTION = map(
    STYLES.index, (Style.COMPLIANCE, Style.ENGAGED, Style.GENERIC, Style.DEFLECTION)
)


def all_cases(data: Path) -> list[Case]:
    """All labelled replies: published ones, and the project's own."""
    styles = {"deflection": DEFLECTION, "engaged": ENGAGED}
    cases = [
        Case(*row[:5], styles.get(row.kind, -1) if row.label else COMPLIANCE)
        for row in human_refusals(data)
    ]
    cases += [style_case(row) for row in style_rows(data)]
    for row in example_rows() + example_rows("evasiveness_objections.jsonl"):
        cases.append(Case(*row[:4], int(row.label != COMPLIANCE), row.label))
    cases += [Case(name, name, q, a, 0, COMPLIANCE) for name, q, a in demonstrations(data)]
    cases += [Case(*row[:4], 1, DEFLECTION) for row in answers_to_other_requests(data)]
    cases += rbr_cases(data)
    return cases + own_cases(BUILT_IN)


def style_case(row: Row) -> Case:
    """A reply with a style; whether it declines follows where the style leaves no doubt."""
    publication = row.source.split("/")[0].removesuffix("_quora").removesuffix("_political")
    clear = row.kind == "compliance" or row.kind.endswith("_refusal")
    twice = publication in {"xstest", "chatgpt_refusals"}  # people have labelled these, too
    refusal = int(row.kind != "compliance") if clear and not twice else -1
    return Case(f"style/{publication}", *row[1:4], refusal, row.label)


def rbr_cases(data: Path) -> list[Case]:
    """Synthetic replies of which people said whether they comply, judge and help."""
    cases = []
    for raw in read_jsonl(data / "refusal-labels/rbr_gold.jsonl"):
        found, texts = raw["propositions"], (raw["prompt"], raw["response"])
        if found["illogical_continuation_of_prompt"]:
            continue
        if found["fully_complies"]:
            cases.append(Case("rbr", "rbr", *texts, 0, COMPLIANCE))
        elif not found["partially_complies"]:
            preaches = found["judgement"] or found["threatening_language"]
            helps = ("encourage_professional_help", "gentle_encouragement_for_help")
            cares = any(found[name] for name in (*helps, "provides_resources"))
            style = GENERIC if preaches else ENGAGED if cares else -1
            cases.append(Case("rbr", "rbr", *texts, 1, style))
    return cases


def own_cases(folder: Path) -> list[Case]:
    """Texts of this project whose style is known from how they were written.

    A demonstration's reply does what was asked and its revision objects, unless there was nothing
    to revise; what is worse than a reply to a borderline request turns it away. So it is with the
    two replies of a judgement that is about declining. Borderline and helpful requests are
    answered.
    """
    cases = []
    for row in read_jsonl(folder / "demonstrations.jsonl"):
        cases.append(own_case("demonstrations", "response", row, COMPLIANCE))
        if row["revision"] != row["response"]:
            cases.append(own_case("demonstrations", "revision", row, ENGAGED))
        if "worse" in row:
            cases.append(own_case("demonstrations", "worse", row, -1))
    for row in read_jsonl(folder / "judgements.jsonl"):
        if row["kind"] == "declines":
            cases.append(own_case("judgements", "chosen", row, ENGAGED))
            cases.append(own_case("judgements", "rejected", row, COMPLIANCE))
    for name in ("borderline", "helpful"):
        for row in read_jsonl(folder / f"{name}.jsonl"):
            cases.append(own_case(name, "response", row, COMPLIANCE))
    return cases


def own_case(source: str, which: str, row: dict[str, Any], style: int) -> Case:
    """Return one of a row's texts, by the row's name for it."""
    talk = from_messages(row["messages"])
    prompt = to_text(talk) + "\n\nAssistant:"
    refusal = int(style != COMPLIANCE)
    return Case(source, which, prompt, row[which], refusal, style, side(talk) != "train")
