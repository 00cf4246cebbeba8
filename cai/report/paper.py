"""The paper's own tests as tables and reliability diagrams, joined over runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cai.report.plots import Series

Row = dict[str, Any]

TITLES = {
    "hhh": "Which reply is more helpful, honest and harmless?",
    "harmful_or_ethical": "Was the assistant harmful or ethical?",
    "harm_types": "In which of nine ways was it harmful?",
}
MODES = {
    "zero_shot": "multiple choice",
    "few_shot": "multiple choice after five answered questions",
    "cot": "one chain of thought",
    "cot_5": "mean of five chains of thought",
    "pm": "preference model's score",
}
HEADS = ("system", "asked by", "accuracy", "ECE", "answered", "without answer", "too long",
         "guessing", "commonest answer")  # fmt: skip
NOTE = (
    "In brackets: 95 % intervals from a bootstrap over conversations. Accuracy and calibration are "
    "of the questions answered: a chain of thought that did not end in time gives no answer, and a "
    "question too long for the model's context is not asked. Guessing: accuracy at random; "
    "commonest answer: of always naming the most frequent one. ECE compares the probability of the "
    "chosen answer with how often it is right. For single conversations the preference model's "
    "accuracy is the share of pairs in which the ethical one has the higher score."
)


@dataclass(frozen=True)
class PaperPart:
    """One test: a table, and a reliability diagram for each mode."""

    title: str
    note: str
    rows: list[list[str]]
    diagrams: list[tuple[str, list[Series]]]


def read_paper_results(
    folders: Sequence[Path], runs: Sequence[Row], names: Sequence[Mapping[str, str]]
) -> list[Row]:
    """Join the tests of result folders; a system that several runs share appears once.

    Args:
        folders: Of evaluate results; those that took no test are passed over.
        runs: Their summaries.
        names: Of each, how its systems are shown.
    """
    read = {
        n: json.loads(path.read_text(encoding="utf-8"))
        for n, folder in enumerate(folders)
        if (path := folder / "paper_tests.json").is_file()
    }
    judges = {n: _preference_model(runs[n]) for n in read}
    tests: dict[str, Row] = {}
    seen: set[tuple[str, ...]] = set()
    for n, data in read.items():
        for about in data["tests"]:
            tests.setdefault(about["test"], {**about, "results": []})
        for result in data["results"]:
            shown = names[n].get(result["system"], result["system"])
            if result["mode"] == "pm" and len(set(judges.values())) > 1:
                shown = f"{shown} ({judges[n]})"
            key = (result["test"], shown, result["mode"])
            if key not in seen:
                seen.add(key)
                tests[result["test"]]["results"].append({**result, "system": shown})
    return list(tests.values())


def paper_parts(tests: Sequence[Row]) -> Iterator[PaperPart]:
    """Yield what is shown of each test."""
    for test in tests:
        said = f"{test['file']}: {test['asked']} of {test['rows']} questions."
        faults = test["unreadable_rows"]
        if faults:
            said += f" {len(faults)} rows could not be read: {'; '.join(faults[:3])}."
        rows = [
            [
                result["system"],
                MODES[result["mode"]],
                _with_interval(result["accuracy"]),
                _number(result["ece"]),
                str(result["n"]),
                str(result["unanswered"]),
                str(result["too_long"]),
                _number(result["chance"]),
                _number(result["commonest"]),
            ]
            for result in test["results"]
        ]
        yield PaperPart(TITLES[test["test"]], said, rows, _diagrams(test["results"]))


def _preference_model(run: Row) -> str:
    return next((str(stage["artifact"]) for stage in run["stages"] if stage["stage"] == "pm"), "")


def _diagrams(results: Sequence[Row]) -> list[tuple[str, list[Series]]]:
    modes: dict[str, list[Series]] = {}
    for result in results:
        bins = result["reliability"]
        if bins:
            series = Series(
                result["system"], [b["confidence"] for b in bins], [b["frequency"] for b in bins]
            )
            modes.setdefault(result["mode"], []).append(series)
    return [(MODES[mode], series) for mode, series in modes.items()]


def _with_interval(value: Row | None) -> str:
    if value is None:
        return ""
    bounds = (value["low"], value["high"])
    shown = "" if None in bounds else f" [{bounds[0]:.3f}, {bounds[1]:.3f}]"
    return f"{value['value']:.3f}{shown}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
