"""The paper's own tests as tables and reliability diagrams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cai.report.cells import Cell, cells, estimate
from cai.report.figures import Labels, Series, plot
from cai.report.names import count, n_of, system_name
from cai.report.paper_results import PaperTest
from cai.report.parts import Block, Figure, Grid, Heading, Note, Table
from cai.results.systems import PaperResult

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
HEADS = ("System", "asked by", "accuracy", "ECE", "answered", "without answer", "too long",
         "guessing", "commonest answer")  # fmt: skip
NOTE = (
    "In brackets: 95 % intervals from a bootstrap over conversations. Accuracy and calibration are "
    "of the questions answered: a chain of thought that did not end in time gives no answer, and a "
    "question too long for the model's context is not asked. Guessing: accuracy at random; "
    "commonest answer: of always naming the most frequent one. ECE compares the probability of the "
    "chosen answer with how often it is right. For single conversations the preference model's "
    "accuracy is the share of pairs in which the ethical one has the higher score."
)


def paper_blocks(tests: Sequence[PaperTest]) -> Iterator[Block]:
    """Yield what is shown of the tests."""
    yield Note(NOTE)
    for test in tests:
        file = test.file
        yield Heading(TITLES[file.test])
        yield Note(f"{file.file}: {file.asked} of {file.rows} questions.")
        if faults := file.unreadable_rows:
            shown = "; ".join(faults[:3])
            yield Note(f"{count(len(faults), 'row')} could not be read: {shown}.")
        yield Table(HEADS, [_row(result) for result in test.results], "column “answered”")
        yield Grid(list(_diagrams(test)))


def title_of(shown: str) -> str:
    """Name a system of the tests for people; what tells it from namesakes stays as it is."""
    name, space, about = shown.partition(" (")
    return f"{system_name(name)}{space}{about}"


def _row(result: PaperResult) -> list[Cell]:
    return cells(
        title_of(result.system),
        MODES[result.mode],
        estimate(result.accuracy, 3),
        result.ece,
        result.n,
        result.unanswered,
        result.too_long,
        result.chance,
        result.commonest,
    )


def _diagrams(test: PaperTest) -> Iterator[Figure]:
    modes: dict[str, list[PaperResult]] = {}
    for result in test.results:
        if result.reliability:
            modes.setdefault(result.mode, []).append(result)
    for mode, results in modes.items():
        series = [
            Series(
                title_of(result.system),
                [part.confidence for part in result.reliability],
                [part.frequency for part in result.reliability],
            )
            for result in results
        ]
        labels = Labels(
            f"paper-{test.file.test}-{mode}", "probability of the answer", "how often it is right"
        )
        yield Figure(
            plot(series, labels, diagonal=True),
            f"Are the answers calibrated? By {MODES[mode]}.",
            n_of([result.n for result in results], "answer"),
            [one.name for one in series],
        )
