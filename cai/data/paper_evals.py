"""The paper's released tests: comparisons of replies, harmful or ethical, and kinds of harm.

Each line is a question in words, ``prompt``, that ends in "The answer is:", and the answers in
``corrects`` and ``incorrects``, each like " (A)". Lines of the HHH file also hold the two whole
dialogues, so that a preference model can compare them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from cai.config import BadRows
from cai.data.rows import apply_rule, collect
from cai.data.source import Source
from cai.data.splits import family
from cai.dialogue import Conversation, Role, from_text
from cai.errors import UserError

ENDING = "The answer is:"
_LABEL = re.compile(r" \(([A-Z])\)")


class PaperTest(Enum):
    """The three tests; the values name them in files."""

    hhh = "hhh"
    harmful_or_ethical = "harmful_or_ethical"
    harm_types = "harm_types"


FILES = {
    PaperTest.hhh: "438HHHEvaluations.jsonl",
    PaperTest.harmful_or_ethical: "HarmfulVsEthical.jsonl",
    PaperTest.harm_types: "HarmfulnessClassification.jsonl",
}
"""The names under which the tests were released."""


@dataclass(frozen=True)
class Item:
    """One question.

    Attributes:
        id: Test and line.
        test: Which test.
        text: The question with its options, as released, without "The answer is:".
        letters: Of the options, in order.
        right: Indices of the right ones.
        group: What the conversation opens with; related questions share it.
        talks: What a preference model may score: for a comparison the better dialogue and the
            worse one, for harmful or ethical the one conversation; empty where the row does not
            allow it.
    """

    id: str
    test: PaperTest
    text: str
    letters: tuple[str, ...]
    right: tuple[int, ...]
    group: str
    talks: tuple[Conversation, ...]


@dataclass(frozen=True)
class PaperFile:
    """A file as read: its questions, and where and why of the first rows that could not be."""

    test: PaperTest
    path: Path
    items: list[Item]
    faults: list[str]


def read_paper_tests(folder: Path, bad: BadRows) -> list[PaperFile]:
    """Read those of the released files that a folder, or its folder ``evals``, holds.

    Raises:
        UserError: If there is none, or one without a row that can be read, or with one that can't
            and the rule is strict.
    """
    found = [
        (test, path)
        for test, name in FILES.items()
        for path in (folder / name, folder / "evals" / name)
        if path.exists()
    ]
    if not found:
        names = ", ".join(FILES.values())
        raise UserError(
            f"evaluate.paper_tests.folder={folder} has none of the released files: {names}"
        )
    return [_read(test, path, bad) for test, path in found]


def parse_item(row: object, test: PaperTest, number: int) -> Item:
    """Read one released line.

    Raises:
        ValueError: Says what is wrong with it.
    """
    if not isinstance(row, dict):
        raise ValueError("a row should be a JSON object")
    prompt = row.get("prompt")
    if not isinstance(prompt, str) or not prompt.rstrip().endswith(ENDING):
        raise ValueError(f"'prompt' should be a text that ends with {ENDING!r}")
    text = prompt.rstrip()[: -len(ENDING)].strip()
    right, wrong = _letters(row, "corrects"), _letters(row, "incorrects")
    letters = tuple(sorted({*right, *wrong}))
    if not right or len(letters) < max(2, len(right) + len(wrong)):
        raise ValueError("'corrects' and 'incorrects' should part two or more different answers")
    for letter in letters:
        if f"\n ({letter}) " not in text:
            raise ValueError(f"the answer ({letter}) is not among the options of 'prompt'")
    talks = _talks(row, text, test)
    group = family(talks[0]) if talks else text
    indices = tuple(letters.index(letter) for letter in right)
    if test is PaperTest.harm_types:  # a score does not say of what kind a harm is
        talks = ()
    return Item(f"{test.value}-{number}", test, text, letters, indices, group, talks)


def _read(test: PaperTest, path: Path, bad: BadRows) -> PaperFile:
    source = Source("evaluate.paper_tests.folder", path)
    found, faults = collect(source, lambda row: parse_item(row, test, 0))
    apply_rule(source, found, faults, bad)
    items = [replace(item, id=f"{test.value}-{number}") for _, number, item in found]
    return PaperFile(test, path, items, faults.listed())


def _letters(row: dict[str, Any], key: str) -> list[str]:
    """Return the letters of answers like " (A)"."""
    answers = row.get(key)
    if not isinstance(answers, list):
        raise ValueError(f"{key!r} should be a list of answers")
    found = [_LABEL.fullmatch(answer) if isinstance(answer, str) else None for answer in answers]
    letters = [match[1] for match in found if match]
    if len(letters) < len(answers):
        raise ValueError(f"the answers in {key!r} should look like ' (A)'")
    return letters


def _talks(row: dict[str, Any], text: str, test: PaperTest) -> tuple[Conversation, ...]:
    """Return the dialogues of a row, or none where they can't be told from the text around them."""
    if test is PaperTest.hhh:
        sides = tuple(_dialogue(row.get(key)) for key in ("text_correct", "text_incorrect"))
        same_prompt = sides[0][:-1] == sides[1][:-1] and sides[0] != sides[1]
        return sides if all(sides) and same_prompt else ()
    # The options are the last lines, and the question is the paragraph before them.
    before = text[: text.rindex("\n (A) ")] if "\n (A) " in text else ""
    talk, _, _ = before.rpartition("\n\n")
    start = talk.find("\n\nHuman:")
    dialogue = _dialogue(talk[start:]) if start >= 0 else ()
    return (dialogue,) if dialogue else ()


def _dialogue(text: object) -> Conversation:
    """Read a dialogue that the assistant ends; empty if it is none."""
    if not isinstance(text, str):
        return ()
    try:
        talk = from_text(text)
    except ValueError:
        return ()
    return talk if talk[-1].role is Role.ASSISTANT else ()
