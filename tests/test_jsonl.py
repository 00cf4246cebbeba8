"""Every row that stages write is read back as it was, and what is not one is refused by name."""

import importlib
import itertools
import json
import pkgutil
import types
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import pytest
from pydantic import ValidationError
from tiny import tiny_config

from cai import results
from cai.config import ModelConfig
from cai.dialogue import assistant, human
from cai.jsonl import Document, Rows, to_json
from cai.results.common import Absent, Messages, Numbers
from cai.results.labels import HeldOut, KnownAnswers, LabelReport, PMMetrics, PreferenceRow
from cai.results.revisions import Yield
from cai.results.systems import Reply, RevisionSummary


def kinds_of_rows():
    """Return every dataclass of cai/results, by name."""
    found = {}
    for module in pkgutil.iter_modules(results.__path__, f"{results.__name__}."):
        for value in vars(importlib.import_module(module.name)).values():
            if is_dataclass(value) and value.__module__.startswith(results.__name__):
                found[value.__name__] = value
    return found


KINDS = kinds_of_rows()


def test_every_row_is_looked_at():
    assert {"LabelledPair", "Metric", "PMMetrics", "Revision", "Reply", "Summary"} <= set(KINDS)
    assert len(KINDS) > 30


# Building a value from its type


class Maker:
    """Makes values of a type, no two alike; an optional one is there or not."""

    def __init__(self, *, whole):
        self.whole, self.numbers = whole, itertools.count(1)

    def of(self, hint, above=()):
        """Make a value; ``above`` are the classes that hold it, and none holds itself twice."""
        n = next(self.numbers)
        plain = {str: f"text {n} ä\n", int: n, float: n + 0.25, bool: n % 2 == 0}
        if hint in plain:
            return plain[hint]
        if hint == Messages:
            return (human(f"ask {n}"), assistant("so\n\nHuman: ü"), human("and?"))
        if hint is ModelConfig:  # has rules of its own
            return tiny_config()
        if hint is Any:
            return {"a.b": [n, None, "x"]}
        if is_dataclass(hint):
            hints = get_type_hints(hint, include_extras=True)
            return hint(**{key: self.of(value, (*above, hint)) for key, value in hints.items()})
        return self.container(get_origin(hint), get_args(hint), above)

    def container(self, origin, inner, above):
        if origin is Annotated:
            return self.of(inner[0], above)
        if origin is list:
            return [self.of(inner[0], above) for _ in "ab"]
        if origin is dict:
            return {self.of(inner[0]): self.of(inner[1], above) for _ in "ab"}
        assert origin in {Union, types.UnionType}, f"no way to make a {origin} of {inner}"
        chosen = [part for part in inner if part is not type(None)]
        if len(chosen) < len(inner) and (not self.whole or above.count(chosen[0]) > 1):
            return None
        return self.of(chosen[next(self.numbers) % len(chosen)], above)


def example(kind, *, whole=True):
    return Maker(whole=whole).of(kind)


def absent_fields(kind):
    """Name the fields that are left out while they are None."""
    hints = get_type_hints(kind, include_extras=True)
    return {name for name, hint in hints.items() if Absent in get_args(hint)[1:]}


def written(kind, name):
    """Return what a field is called in the file."""
    return {(RevisionSummary, "yields"): "yield"}.get((kind, name), name)


whole_or_not = pytest.mark.parametrize("whole", [True, False], ids=["whole", "bare"])
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


# There and back


@whole_or_not
@every_kind
def test_what_is_written_is_read(tmp_path, kind, whole):
    rows = [example(kind, whole=whole), example(kind, whole=not whole)]
    lines, page = Rows(tmp_path / "rows.jsonl", kind), Document(tmp_path / "page.json", list[kind])
    assert not lines.exists()
    assert not page.exists()
    lines.write(iter(rows))
    page.write(rows)
    assert lines.exists()
    assert page.exists()
    assert lines.read() == page.read() == rows
    assert json.loads(page.path.read_text()) == [to_json(row) for row in rows]


@whole_or_not
@every_kind
def test_fields_stand_in_their_order_and_absent_ones_are_left_out(tmp_path, kind, whole):
    file, value = Rows(tmp_path / "rows.jsonl", kind), example(kind, whole=whole)
    file.write([value])
    [row] = map(json.loads, file.path.read_text(encoding="utf-8").splitlines())
    left_out = set() if whole else absent_fields(kind)
    assert list(row) == [
        written(kind, item.name) for item in fields(kind) if item.name not in left_out
    ]


def test_which_fields_are_left_out():
    assert absent_fields(KnownAnswers) == {"known", "accuracy", "ece", "reliability"}
    assert absent_fields(LabelReport) == absent_fields(KnownAnswers)
    assert absent_fields(Reply) == {
        "tokens", "judge_score", "pm_score", "twin_score", "logprob", "harmfulness"
    }  # fmt: skip
    assert absent_fields(HeldOut) == set()  # its null is written


def test_a_field_of_a_value_within_is_left_out_too():
    metrics = example(PMMetrics)
    assert metrics.twin.twin is None
    row = to_json(metrics)
    assert row["twin"] == to_json(metrics.twin)
    assert set(row) - set(row["twin"]) == {"twin"}


def test_a_conversation_is_a_list_of_messages():
    row = to_json(replace(example(PreferenceRow), prompt=(human("Hi"), assistant("Yes?"))))
    assert row["prompt"] == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes?"},
    ]


def test_the_step_stays_a_whole_number(tmp_path):
    file = Rows(tmp_path / "history.jsonl", Numbers)
    file.write([{"step": 3, "loss": 2.0}])
    [row] = file.read()
    assert (type(row["step"]), type(row["loss"])) == (int, float)
    assert file.path.read_text() == '{"step": 3, "loss": 2.0}\n'


def test_documents_have_sorted_keys_and_text_is_text(tmp_path):
    page = Document(tmp_path / "yield.json", list[Yield])
    page.write([Yield(1, "écho", 2, 3)])
    text = page.path.read_text(encoding="utf-8")
    assert list(json.loads(text)[0]) == ["fault", "of", "round", "rows"]
    assert "écho" in text
    assert text.endswith("\n")


# What is refused


WRONG = {
    str: [3, None, ["text"]],
    int: ["3", 3.5, True, None],
    float: ["0.5", True, [0.5]],
    bool: ["true", 1, None],
    Messages: ["Hi", 3, ["Hi"], [], [{"role": "system", "content": "Hi"}]],
}


def wrong_values(hint):
    """Return values that no field of a type may have."""
    if hint in WRONG:
        return WRONG[hint]
    if get_origin(hint) is Annotated:
        return wrong_values(get_args(hint)[0])
    if get_origin(hint) in {Union, types.UnionType}:
        [inner] = [part for part in get_args(hint) if part is not type(None)]
        return [value for value in wrong_values(inner) if value is not None]
    outside = {"superfluous": 1} if get_origin(hint) is list else [{}]
    return [3, "text", None, outside]


def read(path, kind, row):
    """Read a row by a file of rows and by a document; return the two complaints."""
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    found = []
    for file in (Rows(path, kind), Document(path, kind)):
        with pytest.raises(ValidationError) as caught:
            file.read()
        found.append({str(error["loc"][0]) for error in caught.value.errors()})
    return found


@every_kind
def test_a_missing_field_is_named(tmp_path, kind):
    row = to_json(example(kind))
    for item in fields(kind):
        key = written(kind, item.name)
        without = {name: value for name, value in row.items() if name != key}
        if item.default is MISSING:
            assert read(tmp_path / "row", kind, without) == [{key}] * 2


@every_kind
def test_a_superfluous_field_is_named(tmp_path, kind):
    row = to_json(example(kind))
    assert read(tmp_path / "row", kind, {**row, "superfluous": 1}) == [{"superfluous"}] * 2


@every_kind
def test_a_wrong_field_is_named(tmp_path, kind):
    row, hints = to_json(example(kind)), get_type_hints(kind, include_extras=True)
    for item in fields(kind):
        key = written(kind, item.name)
        for value in wrong_values(hints[item.name]):
            assert read(tmp_path / "row", kind, {**row, key: value}) == [{key}] * 2, (key, value)


def test_a_field_of_a_value_within_is_named_with_its_place(tmp_path):
    row = to_json(example(RevisionSummary))
    row["transcripts"][1]["rounds"][0]["faults"][1] = 3
    file = Document(tmp_path / "revise.json", RevisionSummary)
    file.path.write_text(json.dumps(row))
    with pytest.raises(ValidationError, match=r"transcripts\.1\.rounds\.0\.faults\.1"):
        file.read()


# Never half


@dataclass(frozen=True)
class Row:
    """A row of a test."""

    n: int


def test_a_reader_sees_the_old_rows_until_all_new_ones_are_there(tmp_path):
    file = Rows(tmp_path / "rows.jsonl", Row)
    file.write([Row(1)])
    seen = []

    def rows():
        for n in range(3):
            seen.append(file.read())
            yield Row(n)

    file.write(rows())
    assert seen == [[Row(1)]] * 3
    assert file.read() == [Row(0), Row(1), Row(2)]
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_rows_that_break_off_leave_the_old_ones(tmp_path):
    file = Rows(tmp_path / "rows.jsonl", Row)
    file.write([Row(1)])

    def rows():
        yield Row(2)
        raise KeyError("killed")

    with pytest.raises(KeyError):
        file.write(rows())
    assert file.read() == [Row(1)]


def test_a_document_that_can_not_be_written_leaves_the_old_one(tmp_path):
    page = Document(tmp_path / "page.json", Row)
    page.write(Row(1))
    with pytest.raises(ValueError):
        page.write(Row(object()))
    assert page.read() == Row(1)
