"""A stage of another project: one module, one schema, one config file, one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cai.composition import CONF

MODULE = """
from dataclasses import dataclass

from cai.contracts.assistants import Revisions
from cai.jsonl import Document
from cai.pipeline.stage import Result, Stage, Work


@dataclass
class WordsConfig:
    least: int = 1


@dataclass(frozen=True)
class Settings:
    words: WordsConfig


@dataclass(frozen=True)
class Inputs:
    revise: Revisions


@dataclass(frozen=True)
class Count:
    rows: int
    long: int


class Words(Result):
    @property
    def count(self):
        return Document(self.path / "count.json", Count)


def run(settings, inputs, out, job):
    rows = inputs.revise.rows.read()
    long = sum(len(row.response.split()) >= settings.words.least for row in rows)
    out.count.write(Count(len(rows), long))


STAGE = Stage("words", Settings, Inputs, Words, run, lambda config: Work(0))
"""
FILE = """# @package _global_
defaults: [revise, _self_]
stage: words
words: {least: 0}
"""


@pytest.fixture
def project(tmp_path):
    """Lay out a project as pip would install it."""
    site = tmp_path / "site"
    conf = site / "toy_project" / "conf" / "stage"
    conf.mkdir(parents=True)
    (site / "toy_project" / "__init__.py").touch()
    (site / "toy_project" / "conf" / "__init__.py").touch()
    (site / "toy_project" / "words.py").write_text(MODULE)
    (conf / "words.yaml").write_text(FILE)
    info = site / "toy_project-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-project\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[cai.stages]\nwords = toy_project.words:STAGE\n")
    return site


def launch(project, folder, *overrides):
    path = os.pathsep.join([str(project), str(Path(CONF).parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "cai", "hydra.searchpath=[pkg://toy_project.conf]",
               "model=tiny", "scale=tour", "tracking=off", "hardware=cpu", "hardware.threads=1",
               "stage=words", *overrides]  # fmt: skip
    return subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )


def test_another_project_adds_a_stage(project, tmp_path):
    done = launch(project, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    [count] = (tmp_path / "outputs" / "artifacts").glob("words-*/count.json")
    assert json.loads(count.read_text()) == {"rows": 6, "long": 6}
    again = launch(project, tmp_path, "words.least=999")
    assert again.returncode == 0, again.stderr
    assert "revise: reusing" in again.stderr + again.stdout
    found = {json.loads(p.read_text())["long"] for p in count.parents[1].glob("words-*/count.json")}
    assert found == {0, 6}


@pytest.mark.parametrize(
    "line, said",
    [
        ("words = toy_project.nowhere:STAGE", "the stage 'words' can't be loaded"),
        ("words = toy_project.words:Settings", "is no stage of the name 'words'"),
        ("other = toy_project.words:STAGE", "is no stage of the name 'other'"),
    ],
)
def test_a_broken_line_of_another_project_is_one_sentence(project, tmp_path, line, said):
    (project / "toy_project-1.0.dist-info" / "entry_points.txt").write_text(f"[cai.stages]\n{line}")
    done = launch(project, tmp_path)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
