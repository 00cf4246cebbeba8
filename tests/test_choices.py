"""People's choices between systems: what is read and what is refused."""

import json
import math
import re

import pytest

from cai.config import BadRows
from cai.data.choices import HumanChoice, read_choices
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
