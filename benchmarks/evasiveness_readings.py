"""Styles of published replies as two language models read them, by fingerprint and without texts.

``evasiveness_labels.jsonl`` holds what one reader made of replies that nobody had labelled, which
the read-out learns from. ``evasiveness_second.jsonl`` holds second readings of replies that have
a label, by readers who did not know it and were given the labels' definitions: what a much larger
model reaches where the read-out is judged. ``evasiveness_small.jsonl`` holds 1,800 replies of this
project's own small systems to built-in red-team prompts, read likewise: those to prompts of the
train side are learnt from, the others judge.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from evasiveness_rows import (
    BUILT_IN,
    STYLE_CODES,
    STYLES,
    Case,
    Row,
    human_refusals,
    read_jsonl,
    style_case,
    style_rows,
)

from cai.data.splits import side
from cai.dialogue import from_messages, to_text

LABELS = Path(__file__).with_name("evasiveness_labels.jsonl")
SECOND = Path(__file__).with_name("evasiveness_second.jsonl")
SMALL = Path(__file__).with_name("evasiveness_small.jsonl")
COMPLIANT = frozenset({"complied", "disclaimed"})
"""Tones of chatgpt_refusals that are no refusal."""


class Published(NamedTuple):
    """One reply as it was published."""

    publication: str
    system: str
    prompt: str
    response: str


def fingerprint(prompt: str, response: str) -> str:
    """Name a reply by its text."""
    text = f"{prompt.strip()}\n{response.strip()}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def published(data: Path) -> Iterator[Published]:
    """Every reply that may have been read."""
    for row in read_jsonl(data / "hh-rlhf/harmless-base/test.half-a.jsonl.gz"):
        for which in ("chosen", "rejected"):
            before, mark, reply = row[which].rstrip().rpartition("\n\nAssistant:")
            yield Published("hh-rlhf", "hh-rlhf", before + mark, reply)
    for name in ("xstest", "chatgpt_refusals"):
        for row in read_jsonl(data / f"refusal-labels/{name}.jsonl"):
            system = row["system"].removesuffix(" (2023)")
            yield Published(name, system, row["prompt"], row["response"])
    for path in sorted((data / "cai-paper/samples").glob("*.jsonl")):
        for row in read_jsonl(path):
            for reply in row.get("sampled_answers") or [each["revision"] for each in row["cst"]]:
                text = reply.get("sampled_string") or reply["sample"]
                text = text.replace("\n\nHuman:", "")
                yield Published("cai-paper", path.stem.split("_", 1)[1], row["rl_prompt"], text)


def readings(data: Path) -> Iterator[tuple[Published, str]]:
    """Replies that were read, each once, with the code of their style."""
    codes = {row["reply"]: row["style"] for row in read_jsonl(LABELS)}
    for reply in published(data):
        code = codes.pop(fingerprint(reply.prompt, reply.response), None)
        if code is not None:
            yield reply, code


def reading_cases(data: Path) -> list[Case]:
    """Replies that were read, as cases; whether they decline is known where the style is clear."""
    cases = []
    for reply, code in readings(data):
        style = STYLES.index(STYLE_CODES[code])
        row = Row(*reply, style, False, code)
        cases.append(style_case(row)._replace(source=f"readings/{reply.publication}"))
    return cases


def small_cases() -> list[Case]:
    """Replies of the start, SL-CAI and RL-CAI of three seeds, as cases."""
    talks = {row["id"]: row["messages"] for row in read_jsonl(BUILT_IN / "red_team.jsonl")}
    cases = []
    for row in read_jsonl(SMALL):
        talk = from_messages(talks[row["prompt"]])
        prompt = to_text(talk) + "\n\nAssistant:"
        style = STYLES.index(STYLE_CODES[row["style"]])
        read = Row("small", row["system"], prompt, row["response"], style, False, row["style"])
        held = side(talk) != "train"
        cases.append(style_case(read)._replace(source="small", held=held))
    return cases


class Second(NamedTuple):
    """Labels and second readings of the same replies, as numbers; and the replies' prompts."""

    labels: list[int]
    found: list[int]
    prompts: list[str]


def second_styles(data: Path, reader: str) -> Second:
    """Return the styles of ``style_labels`` and what a reader made of them."""
    return _styles(style_rows(data), reader)


def second_small() -> Second:
    """Return the styles of replies of small systems and what a second reader made of a quarter."""
    return _styles([Row(*case[:4], case.style, False) for case in small_cases()], "small")


def second_refusals(data: Path) -> Second:
    """Return the refusals of ``chatgpt_refusals`` and what a reader made of some of them."""
    rows = [row for row in human_refusals(data) if row.source == "chatgpt_refusals"]
    return _second(rows, "tones", lambda tone: int(tone not in COMPLIANT))


def _styles(rows: Iterable[Row], reader: str) -> Second:
    return _second(rows, reader, lambda code: STYLES.index(STYLE_CODES[code]))


def _second(rows: Iterable[Row], reader: str, number: Callable[[str], int]) -> Second:
    """Put labels beside what one reader made of the replies that it read."""
    codes = {row["reply"]: row["label"] for row in read_jsonl(SECOND) if row["reader"] == reader}
    named = [(row, fingerprint(row.prompt, row.response)) for row in rows]
    read = [(row, number(codes[name])) for row, name in named if name in codes]
    labels, prompts = [row.label for row, _ in read], [row.prompt for row, _ in read]
    return Second(labels, [found for _, found in read], prompts)
