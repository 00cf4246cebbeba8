"""The tutorial is followed as it is written; what the other documents name is there."""

import ast
import re
import subprocess
import sys

import pytest

from cai.composition import CONF

ROOT = CONF.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))


def test_the_tutorial_does_what_it_says(tmp_path):
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    [constitution] = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    commands = [c.strip() for c in re.findall(r"```\n(python.*?)```", text, re.DOTALL)]
    assert len(commands) == 3
    folder = tmp_path / "my" / "constitution"
    folder.mkdir(parents=True)
    (folder / "library.yaml").write_text(constitution, encoding="utf-8")
    said = []
    for command in commands:
        words = [sys.executable, *command.split()[1:], "tracking=off", "hardware.threads=1"]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        said.append(done.stdout)
    made = [
        path.read_text() for path in tmp_path.glob("outputs/artifacts/revise-*/revisions.jsonl")
    ]
    assert sum("readers-privacy" in text for text in made) == 1
    assert len(made) == 2, "what the first command made is reused"
    report = said[-1].strip().splitlines()[-1].rpartition(" ")[2]
    assert (tmp_path / report).is_file()


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_files_that_are_named_are_there(path):
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (path.parent / target).exists(), target
    named = re.findall(r"`((?:cai|conf|examples)/[\w/.]+)`", text)
    named += [f"cai/{part}" for part in re.findall(r"`((?:data|algorithms)/\w+\.py)`", text)]
    for name in named:
        assert (ROOT / name).exists(), name


def test_rooms_are_complete():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.split("| room |")[1]
    rooms = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\|([^|]*)\|", table, re.MULTILINE))))
    folders = {path.name for path in (ROOT / "cai").iterdir() if (path / "__init__.py").exists()}
    assert folders <= rooms
    for room in rooms:
        assert (ROOT / "cai" / room).exists() or (ROOT / "cai" / f"{room}.py").exists(), room


def said(node):
    """A string of the code as it is quoted, values as an ellipsis."""
    if isinstance(node, ast.JoinedStr):
        return "".join(said(part) for part in node.values)
    return str(node.value) if isinstance(node, ast.Constant) else "\u2026"


def test_sentences_that_are_quoted_are_said():
    code = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "cai").rglob("*.py")]
    known = {
        said(node)
        for tree in code
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr | ast.Constant)
    }
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8").split("## What is refused")[1]
    quoted = re.findall(r"\| `([^`]+)` \|$", text, re.MULTILINE)
    assert len(quoted) > 20
    assert [sentence for sentence in quoted if sentence not in known] == []
