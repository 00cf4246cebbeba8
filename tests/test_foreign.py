"""The one reader: every form in every format, one rule for bad rows, and files that are none."""

import gzip
import json
import os
import re

import pytest
from data_files import EXAMPLES, FORMATS, PAIRS, PROMPTS, TALK, asked, dialogue, lines_of, said

from cai.config import BadRows, RowFormat
from cai.data import foreign
from cai.data.foreign import document
from cai.data.forms import COLUMNS, Forms
from cai.data.rows import collect, read_rows
from cai.data.source import Source
from cai.data.values import LONGEST_TEXT, quoted
from cai.dialogue import from_messages, human
from cai.errors import UserError
from cai.files import digest_of_file


def put(path, content):
    path.write_bytes(content if isinstance(content, bytes) else lines_of(content))
    return path


def read(path, form, bad=BadRows.strict, **more):
    forms = Forms("set", "people", "set-")
    return read_rows(Source("key", path, wanted=COLUMNS, **more), getattr(forms, form), bad)


def refused(path, form="prompt", **more):
    with pytest.raises(UserError) as caught:
        read(path, form, **more)
    said = str(caught.value)
    assert len(said) < 600
    assert "\n" not in said
    return said


# Forms and formats


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("form", PROMPTS)
def test_prompts_of_every_form_in_every_format(tmp_path, name, form):
    path = put(tmp_path / name, FORMATS[name]([PROMPTS[form](n) for n in range(3)]))
    found = read(path, "prompt")
    assert [p.conversation for p in found] == [(human(f"Question {n}?"),) for n in range(3)]
    assert {p.kind for p in found} == {"set"}
    assert len({p.id for p in found}) == 3


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("form", EXAMPLES)
def test_examples_of_every_form_in_every_format(tmp_path, name, form):
    path = put(tmp_path / name, FORMATS[name]([EXAMPLES[form](n) for n in range(3)]))
    assert [(e.prompt.conversation, e.response) for e in read(path, "example")] == [
        ((human(f"Question {n}?"),), f"Reply {n}.") for n in range(3)
    ]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("form", PAIRS)
def test_comparisons_of_every_form_in_every_format(tmp_path, name, form):
    path = put(tmp_path / name, FORMATS[name]([PAIRS[form](n) for n in range(3)]))
    assert [(c.prompt.conversation, c.a, c.b) for c in read(path, "comparison")] == [
        ((human(f"Question {n}?"),), f"Good {n}.", f"Bad {n}.") for n in range(3)
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("prompts.txt", b"\xef\xbb\xbfQuestion 0?\r\n\r\nQuestion 1?"),
        ("prompts.txt.gz", gzip.compress(b"Question 0?\nQuestion 1?\n", mtime=0)),
        ("prompts.json", b'["Question 0?", "Question 1?"]'),
        ("prompts.jsonl", b'"Question 0?"\n"Question 1?"\n'),
    ],
)
def test_plain_lists_of_prompts(tmp_path, name, content):
    found = read(put(tmp_path / name, content), "prompt")
    assert [p.conversation for p in found] == [(human("Question 0?"),), (human("Question 1?"),)]


def test_whole_conversations_keep_their_turns(tmp_path):
    row = {"prompt": TALK, "chosen": said("good"), "rejected": TALK + said("bad")}
    [pair] = read(put(tmp_path / "a.jsonl", [row]), "comparison")
    assert (pair.prompt.conversation, pair.a, pair.b) == (from_messages(TALK), "good", "bad")


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.parquet"])
def test_columns_may_have_any_name(tmp_path, name):
    rows = [{"question": f"Q{n}?", "prompt": "not this", "better": "a", "worse": "b", "n": n,
             "sure": 0.75} for n in range(2)]  # fmt: skip
    columns = {"prompt": "question", "chosen": "better", "rejected": "worse", "id": "n",
               "probability": "sure"}  # fmt: skip
    path = put(tmp_path / name, FORMATS[name](rows))
    found = read(path, "comparison", columns=columns)
    assert [(c.prompt.id, c.prompt.conversation) for c in found] == [
        ("set-0", (human("Q0?"),)),
        ("set-1", (human("Q1?"),)),
    ]
    assert {(c.a, c.b, c.probability) for c in found} == {("a", "b", 0.75)}


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet", "rows.jsonl"])
def test_a_column_that_is_not_there_is_said_with_those_that_are(tmp_path, name):
    path = put(tmp_path / name, FORMATS[name]([{"text": "a", "label": "b"}]))
    found = read_or_refuse(path, {"prompt": "question"})
    assert found == (
        f"data.files.red_team.columns.prompt='question' is no column of {path}: it has text, label"
    )


def read_or_refuse(path, columns):
    source = Source("data.files.red_team.path", path, columns=columns, wanted=("prompt",))
    with pytest.raises(UserError) as caught:
        read_rows(source, Forms("set").prompt, BadRows.strict)
    return str(caught.value)


# One rule for rows that can't be used


BAD = {
    "not JSON": (b"{", "is not JSON"),
    "not UTF-8": (b'{"prompt": "\xff"}', "is not UTF-8 text"),
    "a number alone": (b"3", "should be a JSON object"),
    "a list": (b"[1]", "should be a JSON object"),
    "half a surrogate pair": (b'{"prompt": "a \\ud83d"}', "half a surrogate pair"),
    "nested deeply": (b'{"prompt": ' + b"[" * 100_000, "values within values"),
    "nested": (b'{"prompt": ' + b"[" * 40 + b"]" * 40 + b"}", "values within values"),
    "many digits": (b'{"prompt": "a", "id": ' + b"9" * 5000 + b"}", "too many digits"),
    "digits as an id": (b'{"prompt": "a", "id": ' + b"9" * 4000 + b"}", "at most 200 characters"),
    "a huge text": (json.dumps({"prompt": "a" * (LONGEST_TEXT + 1)}).encode(), "1,000,001"),
    "no prompt": (b'{"text": "a"}', "has neither 'prompt' nor 'messages'"),
    "no text": (b'{"prompt": 3}', "a text or a list of messages"),
    "empty": (b'{"prompt": " "}', "turn 1 is empty"),
    "messages as text": (b'{"messages": "Hi"}', "no dialogue"),
    "messages as a list of texts": (b'{"messages": ["Hi"]}', "a list of messages"),
    "a role that is a list": (b'{"messages": [{"role": [], "content": "a"}]}', "needs a role"),
    "the id of another": (b'{"prompt": "b", "id": "1"}', "is that of another prompt"),
    "another form": (b'{"messages": [{"role": "user", "content": "a"}]}', "keep to one form"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_rows_are_refused_or_left_out_by_one_rule(tmp_path, caplog, name):
    line, fault = BAD[name]
    good = [b'{"prompt": "a", "id": 1}', b'{"prompt": "c", "id": 3}']
    path = put(tmp_path / "a.jsonl", b"\n".join([good[0], b"", line, good[1]]) + b"\n")
    said = refused(path)
    assert said.startswith(f"{path}:3 ")
    assert fault in said
    assert said.endswith("; mend it, or leave it out by data.bad_rows=skip")
    assert [p.id for p in read(path, "prompt", BadRows.skip)] == ["set-1", "set-3"]
    assert re.search(rf"key: 1 rows left out, first {path}:3 .*{re.escape(fault)}", caplog.text)


def test_many_bad_rows_are_counted(tmp_path, caplog):
    path = put(tmp_path / "a.jsonl", b"{\n" * 3 + b'{"x": 1}\n' * 5 + b'{"prompt": "a"}\n')
    assert f"{path}:1 is not JSON" in (said := refused(path))
    assert "(and 7 more of 9 rows can't be used)" in said
    assert len(read(path, "prompt", BadRows.skip)) == 1
    assert [record.getMessage().split(" rows")[0] for record in caplog.records] == [
        "key: 3",
        "key: 5",
    ]


@pytest.mark.parametrize("bad", BadRows)
def test_nothing_left_is_refused_under_either_rule(tmp_path, bad):
    path = put(tmp_path / "a.jsonl", b"{}\n{}\n")
    said = refused(path, bad=bad)
    assert said.startswith(f"key={path}: none of 2 rows can be used; the first, {path}:1, is ")


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "are the same reply"),
        ({"prompt": "a", "chosen": None, "rejected": "b"}, "'chosen' should be a text"),
        ({"prompt": "a", "chosen": 3, "rejected": "b"}, "'chosen' should be a text"),
        ({"chosen": 3, "rejected": 4}, "should be a text or a list of messages"),
        ({"chosen": "b", "rejected": "c"}, "no 'prompt' is beside it"),
        ({"chosen": dialogue("a", "b"), "rejected": dialogue("z", "c")}, "the sides differ"),
        ({"chosen": dialogue("a", "b"), "rejected": asked("a") + said("c")}, None),
        ({"chosen": asked("a"), "rejected": asked("a")}, "does not end with the assistant"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "probability": 2}, "in [0, 1]"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "probability": "x" * 9**6}, "a number"),
    ],
)
def test_comparisons_that_are_none(tmp_path, row, fault):
    path = put(tmp_path / "a.jsonl", [row])
    if fault is None:
        assert len(read(path, "comparison")) == 1
    else:
        assert fault in refused(path, "comparison")


REAL = {
    "preference/coconot_overrefusal_pairs.jsonl.gz": ("comparison", {}, 927, 0),
    "preference/oasst_en100_pairs.jsonl.gz": ("comparison", {}, 458, 0),
    "preference/llmbar_adversarial_and_llmeval2.jsonl": ("comparison", {}, 504, 15),
    "preference/pandalm_pairs.jsonl": ("comparison", {}, 447, 30),
    "prompts/coconot_eval.jsonl": ("prompt", {"kind": "category"}, 1001, 0),
    "helpful/oasst_en100_demos.jsonl": ("example", {"messages": "text"}, 150, 1),
    "refusal-labels/rbr_gold.jsonl": ("example", {}, 286, 5),
}


@pytest.mark.parametrize("name", REAL)
def test_published_files_are_read_but_for_rows_that_are_none(real_data, name):
    form, columns, good, bad = REAL[name]
    source = Source("key", real_data / name, columns=columns, wanted=COLUMNS)
    records, faults = collect(source, getattr(Forms("set", "people", "set-"), form))
    assert (len(records), faults.count) == (good, bad)


# Files that are none


def test_what_lies_at_a_path_and_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo.jsonl")
    for path in (tmp_path / "fifo.jsonl", "/dev/zero", tmp_path):
        assert "is not a regular file" in refused(tmp_path / path)
    assert "does not exist" in refused(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match=r"^key=\S+ is no regular file"):
        digest_of_file(tmp_path / "fifo.jsonl", "key")


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.csv.gz"])
@pytest.mark.parametrize("cut", [30, -9, -1])
def test_a_damaged_gzip_is_refused_whole(tmp_path, name, cut):
    rows = [{"prompt": f"{n} {hash(str(n))}"} for n in range(300)]
    content = FORMATS[name](rows)
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 0x41
    for data in (content[:cut], bytes(flipped), b"no gzip"):
        said = refused(put(tmp_path / name, data), bad=BadRows.skip)
        assert said.startswith(f"key={tmp_path / name} can't be read: ") or "rows" in said


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("a.parquet", b"PAR1 nothing else", "can't be read: as parquet"),
        ("a.parquet", b"", "can't be read: as parquet"),
        ("a.json", b'[{"prompt": "a"},\n{]', "a.json:2 is not JSON"),
        ("a.csv", b"prompt,prompt\na,b\n", "should name every column once"),
        ("a.csv", b"prompt,x\na\n", "has 1 cells, and the header 2"),
        ("a.csv", b'prompt\n"a\n', "is not CSV"),
        ("a.csv", b"prompt\n\xff\n", "no UTF-8 text"),
    ],
)
def test_files_that_are_not_what_they_are_called(tmp_path, name, content, fault):
    assert fault in refused(put(tmp_path / name, content))


@pytest.mark.parametrize("bound", ["LONGEST_LINE", "LARGEST_LIST"])
def test_what_no_memory_holds_is_refused(tmp_path, monkeypatch, bound):
    monkeypatch.setattr(foreign, bound, 100)
    rows = [{"prompt": "a" * 60}, {"prompt": "b" * 100}]
    content = (
        json.dumps(rows).encode() if bound == "LARGEST_LIST" else gzip.compress(lines_of(rows))
    )
    said = refused(put(tmp_path / "a.jsonl", content), bad=BadRows.skip)
    assert "100 bytes" in said


def test_the_format_can_be_said(tmp_path):
    path = put(tmp_path / "prompts.data", b"prompt\nHi?\n")
    assert "is not JSON" in refused(path)
    [prompt] = read(path, "prompt", format=RowFormat.csv)
    assert prompt.conversation == (human("Hi?"),)


def test_a_document_is_read_by_the_same_rules(tmp_path):
    assert document(put(tmp_path / "a.json", b'\xef\xbb\xbf{"a": 1}'), "key") == {"a": 1}
    for content in (b"[" * 99999, b"9" * 5000, b'"\\ud800"', b"\xff", b"{"):
        with pytest.raises(UserError, match=r"a\.json"):
            document(put(tmp_path / "a.json", content), "key")


def test_what_is_quoted_is_cut():
    for value in ("x" * 10**6, ["x" * 10**6] * 9, {"a": {"b": ["c" * 10**6]}}, 10**3000):
        assert len(quoted(value)) < 600
    assert quoted("a") == "'a'"
