"""Files are put where they are kept by cai/files.py alone; two runs never share a folder."""

import ast
import errno
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from safetensors import SafetensorError

from cai import files, parts
from cai.files import claim, filling, replacing, set_aside, write_text
from cai.sentences import sentence_of

ROOT = Path(__file__).resolve().parents[1]

WRITING = {
    "write_text", "write_bytes", "save_file", "save_pretrained", "touch", "dump", "copyfile",
    "copy", "copy2", "copytree", "move", "replace", "rename", "unlink", "rmtree", "symlink_to",
    "hardlink_to", "savez", "NamedTemporaryFile", "mkstemp",
}  # fmt: skip
"""Calls that change what lies on a disk, if what they are called on is a file."""
MODULES = {"shutil", "os", "torch", "json", "pickle", "np", "numpy", "yaml", "OmegaConf"}
SCRATCH = {"scratch"}
"""What a file is called that will be put in its place."""
ALLOWED = {
    "cai/files.py": "puts files in their places",
    "cai/parts.py": "keeps the ledger, whose lines are flushed one by one",
    "cai/tracking.py": "appends to metrics.jsonl, which is no result",
    "cai/sampling/vllm_server.py": "lets a server write its log to a folder for a while",
    "cai/sampling/vllm.py": "hands adapters over in a folder for a while",
    "cai/score.py": "appends to OUT.partial, whose rows are looked at before it goes on",
    "cai/pipeline/store.py": "probes whether it may write, and renames whole results",
    "cai/pipeline/execute.py": "copies a workspace for a process that throws it away",
    "cai/lm/embedded.py": "renames a whole folder that is flushed",
    "cai/sweep.py": "forgets what an earlier run of an arm has said",
    "cai/followers.py": "takes the scratch of a process that ends along",
    "cai/data/choices.py": "appends choices, whole and flushed one by one",
    "cai/export/data.py": "writes to a folder that appears when it is whole",
    "cai/export/models.py": "likewise",
    "cai/lm/prepared.py": "begins a folder anew that the package ships",
}
"""Modules that may, and why."""


def writes(tree):
    """Return the lines on which something is opened for writing, moved or removed."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return sorted({node.lineno for node in calls if changes_a_file(node)})


def changes_a_file(node):
    function = node.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    owner = ast.unparse(function.value) if isinstance(function, ast.Attribute) else ""
    given = [ast.unparse(argument) for argument in node.args]
    if name == "open":
        return opens_for_writing(node) and owner not in SCRATCH
    if name == "save":
        return owner in {"torch", "np", "OmegaConf"} and "buffer" not in given
    return name in WRITING and is_of_files(name, owner, given)


def opens_for_writing(node):
    words = [a.value for a in (*node.args, *(k.value for k in node.keywords))
             if isinstance(a, ast.Constant) and isinstance(a.value, str)]  # fmt: skip
    return any(re.fullmatch(r"[rbt]*[wax+][rbt+]*", word) for word in words)


def is_of_files(name, owner, given):
    if name == "write_text" and not owner:  # that of cai.files
        return False
    if any(re.match(r"(str\()?(scratch|buffer)\b", text) for text in (owner, *given)):
        return False
    if name in {"replace", "rename", "copy", "dump", "move"}:  # of texts and values, too
        return owner in MODULES or (name != "copy" and owner.startswith("Path("))
    return True


def test_nothing_else_puts_files_where_they_are_kept():
    found = {}
    for path in sorted((ROOT / "cai").rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if lines := writes(ast.parse(path.read_text(encoding="utf-8"))):
            found[name] = lines
    wrong = {name: lines for name, lines in found.items() if name not in ALLOWED}
    assert not wrong, f"use replacing, filling, write_text or remove of cai.files: {wrong}"
    assert set(ALLOWED) == set(found), "what is allowed and not used any more"


SNEAKY = {
    "path.write_text('x')": True,
    "Path(a).write_bytes(b)": True,
    "open(path, 'w')": True,
    "path.open(mode='ab')": True,
    "path.open('rb+')": True,
    "save_file(state, folder / FILE)": True,
    "model.save_pretrained(folder)": True,
    "torch.save(state, path)": True,
    "OmegaConf.save(config, path)": True,
    "shutil.copyfile(a, b)": True,
    "os.replace(a, b)": True,
    "Path(a).replace(b)": True,
    "json.dump(value, file)": True,
    "path.unlink(missing_ok=True)": True,
    "path.open('rb')": False,
    "path.open(encoding='utf-8')": False,
    "text.replace('a', 'b')": False,
    "replace(row, a=1)": False,
    "scratch.write_text(text)": False,
    "save_file(state, scratch / FILE)": False,
    "torch.save(state, buffer)": False,
    "copy.copy(x)": False,
}


@pytest.mark.parametrize("line", SNEAKY)
def test_the_rule_sees_what_it_should(line):
    assert bool(writes(ast.parse(line))) == SNEAKY[line]


# Order


@pytest.fixture
def watched(monkeypatch):
    """Note in which order files are flushed and renamed."""
    said = []
    flush, put = files.flush, Path.replace
    monkeypatch.setattr(
        files, "flush", lambda path: (said.append(("flush", path.name)), flush(path))
    )
    monkeypatch.setattr(
        Path, "replace", lambda a, b: (said.append(("put", Path(b).name)), put(a, b))[1]
    )
    return said


def test_a_file_is_flushed_before_its_name_and_its_folder_after(tmp_path, watched):
    write_text(tmp_path / "a.json", "{}")
    (_, scratch), *rest = watched
    assert scratch.startswith("a.json.") and scratch.endswith(".tmp")
    assert rest == [("put", "a.json"), ("flush", tmp_path.name)]


def test_the_ledger_says_so_before_a_file_stands_there(tmp_path, monkeypatch):
    workspace = tmp_path / "sft-1.partial"
    workspace.mkdir()
    parts.begin(workspace)
    put = Path.replace

    def look(source, target):
        assert parts.read(workspace)["rows"].sums == {files.sha256_of(source)}
        assert not parts.read(workspace)["rows"].needed
        return put(source, target)

    monkeypatch.setattr(Path, "replace", look)
    write_text(workspace / "rows", "1\n")
    assert parts.read(workspace)["rows"].needed


def test_several_files_take_their_places_when_all_are_written(tmp_path):
    folder = tmp_path / "model"
    with pytest.raises(KeyError), filling(folder) as scratch:
        (scratch / "a").write_text("a")
        raise KeyError
    assert list(folder.iterdir()) == []
    with filling(folder) as scratch:
        (scratch / "a").write_text("a")
        (scratch / "b").write_text("b")
        assert [p.name for p in folder.iterdir()] == [scratch.name]
    assert sorted(p.name for p in folder.iterdir()) == ["a", "b"]


# Disks


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_an_error_of_the_disk_has_one_class_and_one_sentence(tmp_path, number):
    words = {errno.ENOSPC: "disk is full", errno.EDQUOT: "disk is full", errno.EFBIG: "ulimit -f"}
    rust = SafetensorError(f"Error while serializing: I/O error: oh (os error {number})")
    for raised in (rust, OSError(number, "oh")):
        with pytest.raises(OSError) as caught, replacing(tmp_path / "weights"):
            raise raised
        assert caught.value.errno == number
        said = sentence_of(caught.value)
        assert words[number] in said
        assert str(tmp_path / "weights") in said
    assert sentence_of(OSError(errno.EACCES, "no")) is None
    assert "outputs" in sentence_of(OSError(number, "oh"))


def test_another_error_stays_what_it_is(tmp_path):
    with pytest.raises(SafetensorError), replacing(tmp_path / "weights"):
        raise SafetensorError("not contiguous")


# Folders


def test_two_that_claim_a_folder_at_once_get_two(tmp_path):
    got = []
    threads = [
        threading.Thread(target=lambda: got.append(claim(tmp_path / "runs" / "now")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.name for path in got) == ["now", *(f"now-{n}" for n in range(2, 9))]


def test_a_folder_below_a_file_can_not_be_claimed(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        claim(tmp_path / "file" / "now")


def test_what_is_set_aside_twice_has_two_names(tmp_path):
    names = []
    for _ in range(3):
        (tmp_path / "a").mkdir()
        names.append(set_aside(tmp_path / "a").name)
    assert names == ["a.corrupt", "a.corrupt-2", "a.corrupt-3"]
    assert set_aside(tmp_path / "a") is None  # somebody was faster


ONE_SECOND = """
import sys, types
from omegaconf import OmegaConf
job = types.ModuleType("cai.run")
job.run = lambda config, folder: (folder / "mark").write_text("x")
sys.modules["cai.run"] = job  # nothing is made, so nothing heavy is loaded
from cai import sweep
from cai.__main__ import main
sweep.share = lambda configs: types.SimpleNamespace(describe=str)
from hydra.core import utils
import hydra._internal.hydra
utils.setup_globals()
OmegaConf.register_new_resolver("now", lambda form: "same", replace=True, use_cache=True)
hydra._internal.hydra.setup_globals = lambda: None
sys.exit(main())
"""


def start(tmp_path, *words):
    command = [sys.executable, "-c", ONE_SECOND, *words, "model=tiny", "tracking=off", "outputs=o"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE)


def test_two_runs_and_two_sweeps_that_start_in_one_second_have_folders_of_their_own(tmp_path):
    started = [start(tmp_path), start(tmp_path), start(tmp_path, "-m", "seed=0,1"),
               start(tmp_path, "-m", "seed=0,1")]  # fmt: skip
    for process in started:
        _, said = process.communicate(timeout=280)
        assert process.returncode == 0, said.decode()
    marks = sorted(p.parent.relative_to(tmp_path / "o").as_posix() for p in tmp_path.rglob("mark"))
    assert marks == [
        "runs/same_evaluate", "runs/same_evaluate-2", "sweeps/same-2/0", "sweeps/same-2/1",
        "sweeps/same/0", "sweeps/same/1",
    ]  # fmt: skip
