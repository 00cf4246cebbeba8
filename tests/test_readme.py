"""What the README says is there: its commands compose, its options and folders exist."""

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from cai.composition import CONF, typed

ROOT = CONF.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
COMMANDS = sorted(set(re.findall(r"python -m cai[^`#\n]*", TEXT)))
LAUNCHES = [words[3:] for words in map(shlex.split, COMMANDS) if words[2] == "cai"]


def test_there_is_something_to_check():
    assert len(COMMANDS) > 9
    assert ["stage=rl"] in LAUNCHES


@pytest.mark.parametrize("words", LAUNCHES, ids=" ".join)
def test_commands_compose(words):
    overrides = [re.sub(r"<\w+>", "abc", word.partition(",")[0]) for word in words if "=" in word]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert typed(compose("config", overrides=overrides)).stage


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("python -m cai.")])
def test_commands_have_their_options(command):
    module, *words = shlex.split(command)[2:]
    found = find_spec(module)
    entry = find_spec(f"{module}.__main__") if found.submodule_search_locations else found
    source = Path(entry.origin).read_text(encoding="utf-8")
    for word in words:
        if word.startswith("--"):
            assert f'"{word}"' in source


@pytest.mark.parametrize(
    "group", sorted(p.name for p in CONF.iterdir() if p.is_dir() and p.name != "hydra")
)
def test_the_table_of_groups_is_complete(group):
    [row] = re.findall(rf"^\| `{group}` \|(.*)\|$", TEXT, re.MULTILINE)
    named = set(re.findall(r"`([a-z_0-9]+)`", row))
    files = {path.stem for path in (CONF / group).glob("*.yaml")}
    assert named == files - {"base"}, "what the others inherit is not chosen"


def test_the_table_of_sweeps_is_complete():
    section = TEXT.split("| sweep | question |")[1].split("\n\n")[0]
    named = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert set(named) == {path.stem for path in (ROOT / "sweeps" / "sweep").glob("*.yaml")}
    for path in (ROOT / "sweeps").glob("*.yaml"):
        assert f"sweeps/{path.name}" in TEXT


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT):
        assert (ROOT / target).exists(), target


def test_numbers_of_built_in_data():
    files = {"red-team prompts": "red_team", "borderline": "borderline", "answers": "helpful",
             "comparisons": "comparisons", "demonstrations": "demonstrations",
             "judgements": "judgements"}  # fmt: skip
    said = " ".join(TEXT.split("Built-in data are small:")[1].split("`data=")[0].split())
    for words, name in files.items():
        [number] = re.findall(rf"(\d+) (?:\w+ )?{words}", said)
        path = ROOT / "cai" / "data" / "builtin" / f"{name}.jsonl"
        assert int(number) == len(path.read_text(encoding="utf-8").splitlines()), name
