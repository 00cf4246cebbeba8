"""People's choices between systems: what is read and what is refused."""

import json
import math
import re
import subprocess
import sys

import pytest

from cai.config import BadRows
from cai.data.choices import HumanChoice, append_choice, read_choices
from cai.errors import UserError

NAMES = ["helpful", "sl_cai", "rl_cai"]
IDS = {f"p{n}" for n in range(40)}


def choice(a="rl_cai", b="sl_cai", prompt="p0", axis="harmlessness", said="a"):
    return {"a": a, "b": b, "prompt_id": prompt, "axis": axis, "choice": said}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_choices_are_read_as_outcomes(tmp_path):
    said = ["a", "b", "tie", 0.25, 1]
    path = write(tmp_path / "c.jsonl", [choice(said=s) for s in said])
    found = read_choices(path, NAMES, IDS, BadRows.strict)
    assert found[0] == HumanChoice("rl_cai", "sl_cai", "p0", "harmlessness", 1.0)
    assert [c.outcome for c in found] == [1.0, 0.0, 0.5, 0.25, 1.0]


BAD_CHOICES = {
    "an unknown system": (choice(a="gpt"), "a='gpt' is unknown: the systems evaluated are helpful"),
    "an unknown second one": (choice(b="gpt"), "b='gpt' is unknown"),
    "an unknown prompt": (choice(prompt="x"), "prompt_id='x' is unknown: the prompts evaluated"),
    "an unknown axis": (choice(axis="charm"), "harmlessness, helpfulness"),
    "one system": (choice(a="sl_cai"), "'a' and 'b' are both 'sl_cai'"),
    "a word": (choice(said="left"), "choice='left' should be a, b, tie, or the probability"),
    "truth": (choice(said=True), "choice=True should be"),
    "beyond one": (choice(said=1.5), "choice=1.5 should be"),
    "not a number": (choice(said=math.nan), "choice=nan should be"),
    "nothing": (choice(said=None), "choice=None should be"),
    "no choice": ({k: v for k, v in choice().items() if k != "choice"}, "lacks the key 'choice'"),
    "a half sample": ({**choice(), "sample": 0.5}, "sample=0.5 should be a whole number from 0"),
    "a nameless person": ({**choice(), "annotator": " "}, "'annotator' should be a text"),
    "no conversation": ({**choice(prompt="x"), "messages": "Hi"}, "a list of messages"),
    "a chat that waits for nobody": (
        {
            **choice(),
            "messages": [
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Hello"},
            ],
        },
        "a prompt must end with the human's turn",
    ),
    "a list": ([], "should be a JSON object"),
}


@pytest.mark.parametrize("name", BAD_CHOICES)
def test_a_bad_choice_is_named_by_file_and_line(tmp_path, name):
    row, said = BAD_CHOICES[name]
    path = write(tmp_path / "choices.jsonl", [choice(), choice(), row])
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        read_choices(path, NAMES, IDS, BadRows.strict)
    assert "choices.jsonl:3" in str(caught.value)


def test_no_choices_are_said(tmp_path):
    with pytest.raises(UserError, match=r"evaluate.opinions.human_choices=\S+ does not exist"):
        read_choices(tmp_path / "none.jsonl", NAMES, IDS, BadRows.strict)
    with pytest.raises(UserError, match="has no rows: give people's choices"):
        read_choices(write(tmp_path / "empty.jsonl", []), NAMES, IDS, BadRows.strict)


def test_of_a_persons_choices_between_the_same_replies_the_last_counts(tmp_path):
    named = {**choice(said="a"), "annotator": "ann"}
    rows = [
        named,
        {**named, "sample": 1},
        {**named, "annotator": "ben"},
        {**named, "axis": "helpfulness"},
        choice(said="a"),
        choice(said="a"),  # nobody's: both count
        {**named, "a": "sl_cai", "b": "rl_cai", "choice": "a"},  # turned round, and the other one
    ]
    found = read_choices(write(tmp_path / "c.jsonl", rows), NAMES, IDS, BadRows.strict)
    assert len(found) == 6
    assert found[0] == HumanChoice("sl_cai", "rl_cai", "p0", "harmlessness", 1.0, 0, "ann")


def test_a_chat_brings_its_own_prompt(tmp_path):
    row = {**choice(prompt="chat-1"), "messages": [{"role": "user", "content": "Hi"}], "sample": 2}
    [found] = read_choices(write(tmp_path / "c.jsonl", [row]), NAMES, IDS, BadRows.strict)
    assert (found.prompt_id, found.sample) == ("chat-1", 2)


def test_what_is_appended_is_read(tmp_path):
    path = tmp_path / "new" / "c.jsonl"
    for n in range(3):
        append_choice(path, {**choice(prompt=f"p{n}"), "annotator": "Zoë \ud800\n"})
    assert [c.prompt_id for c in read_choices(path, NAMES, IDS, BadRows.strict)] == [
        "p0",
        "p1",
        "p2",
    ]
    assert len(path.read_text().splitlines()) == 3


@pytest.mark.parametrize("torn", ['{"a": "rl', '{"a": "rl_cai", "b": "sl_cai"}'])
def test_half_a_line_of_a_killed_writer_is_cut_off(tmp_path, torn):
    path = write(tmp_path / "c.jsonl", [choice(), choice(prompt="p1")])
    path.write_text(path.read_text() + torn)
    append_choice(path, choice(prompt="p2"))
    assert [c.prompt_id for c in read_choices(path, NAMES, IDS, BadRows.strict)] == [
        "p0",
        "p1",
        "p2",
    ]


def test_many_processes_append_whole_lines(tmp_path):
    path = tmp_path / "c.jsonl"
    code = (
        "import sys\nfrom pathlib import Path\nfrom cai.data.choices import append_choice\n"
        "for n in range(50):\n"
        "    append_choice(Path(sys.argv[1]), {'who': sys.argv[2], 'n': n, 'x': 'y' * 5000})\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(path), who]) for who in "abc"]
    assert [process.wait() for process in running] == [0, 0, 0]
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted((row["who"], row["n"]) for row in rows) == [
        (who, n) for who in "abc" for n in range(50)
    ]


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"the choice was not kept, for \S+ can't be written"):
        append_choice(tmp_path / "file" / "c.jsonl", choice())
