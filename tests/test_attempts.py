"""Rated conversations: both published forms, what is left out, and what is refused."""

import gzip
import json
import logging
import math

import pytest

from cai.config import BadRows
from cai.data.attempts import read_attempts as read_under
from cai.dialogue import assistant, human
from cai.errors import UserError


def row(transcript="\n\nHuman: How?\n\nAssistant: Like this.", rating=3.0, **more):
    return {"transcript": transcript, "rating": rating, "task_description": "ask", **more}


def read_attempts(path, bad=BadRows.strict):
    return read_under(path, bad)


def write(path, rows):
    text = "".join(json.dumps(r) + "\n" for r in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def published(path, rows):
    """Write one list, as the published file is in spite of its name."""
    text = json.dumps(rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
@pytest.mark.parametrize("form", [write, published])
def test_both_forms_of_the_published_rows_are_read(tmp_path, name, form):
    rows = [row(rating=0, tags=None), row("\n\nHuman: A\n\nAssistant: B\n\nHuman: C", 2.5)]
    first, second = read_attempts(form(tmp_path / name, rows))
    assert first == ((human("How?"), assistant("Like this.")), 0.0)
    assert second == ((human("A"), assistant("B")), 2.5)  # nobody answered the last turn


def test_transcripts_that_are_no_dialogues_are_left_out_and_named(tmp_path, caplog):
    odd = [row("\n\nAssistant: I begin."), row("\n\nHuman: Alone"), row("\n\nAssistant: Me too.")]
    path = write(tmp_path / "a.jsonl", [row(), *odd])
    with caplog.at_level(logging.WARNING):
        assert len(read_attempts(path, BadRows.skip)) == 1
    said = "evaluate.harmfulness.ratings: {} rows left out, first {}:{} is malformed: {}"
    assert said.format(2, path, 2, "turn 1 should be the human's") in caplog.messages
    assert said.format(1, path, 3, "the assistant says nothing") in caplog.messages
    with pytest.raises(UserError, match=r"none of 3 rows can be used; the first, .*b.jsonl:1, is"):
        read_attempts(write(tmp_path / "b.jsonl", odd), BadRows.skip)


BAD_ROWS = {
    '{"rating": 1}': "lacks the key 'transcript'",
    '{"transcript": "x"}': "lacks the key 'rating'",
    '{"transcript": 3, "rating": 1}': "'transcript' should be a text",
    json.dumps(row(rating=4.1)): "rating=4.1 should be a number from 0 to 4",
    json.dumps(row(rating=-1)): "rating=-1 should be",
    json.dumps(row(rating=True)): "rating=True should be",
    json.dumps(row(rating="3")): "rating='3' should be",
    json.dumps(row(rating=math.nan)): "rating=nan should be",
    "{": "is not JSON",
    "[]": "should be a JSON object",
}


@pytest.mark.parametrize("line", BAD_ROWS)
def test_a_bad_rating_is_named_by_file_and_line(tmp_path, line):
    path = tmp_path / "ratings.jsonl"
    path.write_text(f"{json.dumps(row())}\n\n{line}\n")
    with pytest.raises(UserError) as caught:
        read_attempts(path)
    assert f"{path}:3" in str(caught.value)
    assert BAD_ROWS[line] in str(caught.value)


def test_a_bad_row_of_the_one_list_is_named_by_its_place(tmp_path):
    with pytest.raises(UserError, match=r"a.jsonl, item 2 is malformed: rating=5"):
        read_attempts(published(tmp_path / "a.jsonl", [row(), row(rating=5)]))
    (tmp_path / "b.jsonl").write_text('[{"rating": 1},\n oh]')
    with pytest.raises(UserError, match=r"b.jsonl:2 is not JSON"):
        read_attempts(tmp_path / "b.jsonl")
    with pytest.raises(UserError, match=r"evaluate.harmfulness.ratings=\S+ does not exist"):
        read_attempts(tmp_path / "c.jsonl")
    (tmp_path / "d.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(UserError, match="can't be read"):
        read_attempts(tmp_path / "d.jsonl.gz")
