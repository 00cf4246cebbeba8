"""Stages on the tiny model, each run in a child that is forked with all libraries loaded.

A child may be broken at any operation on its files (``shim.c``). What it says and how it ends is
looked at afterwards, and so is what the next one makes of what it left.
"""

import ctypes
import gc
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
import uuid
from pathlib import Path
from typing import NamedTuple

from .processes import MARK, STUCK, wait

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
STAGES = ("helpful", "revise", "sft", "feedback", "pm", "rl", "judge", "evaluate")
SMALL = (
    "model=tiny", "scale=tour", "tracking=off", "hardware=cpu", "hardware.threads=1",
    "scale.reply_tokens=3", "scale.critique_tokens=3",
    "helpful.examples=2", "helpful.demonstrations=2", "helpful.comparisons=0",
    "helpful.batch_size=1", "helpful.epochs=2", "revise.prompts=2", "revise.rounds=1",
    "revise.batch_size=1", "revise.guards.truncation=false", "revise.guards.markers=false",
    "sft.batch_size=1", "sft.epochs=3", "feedback.prompts=2", "feedback.sampling.batch_size=1",
    "pm.helpful_pairs=4", "pm.batch_size=1", "pm.epochs=3",
    "rl.iterations=2", "rl.rollout.prompts=2", "rl.watch.evaluate_every=1", "judge.pairs=6",
    "evaluate.prompts=1", "evaluate.batch_size=2", "evaluate.bootstrap=10",
    "evaluate.persona=false",
)  # fmt: skip
"""The smallest run in which every stage writes everything that it can write, checkpoints too."""
LITTLE = 60
"""Rows of each kind of data."""
COUNT, KILL, POWER, FULL = range(4)
BAD = ("DIFFERENT", "TRACEBACK", "STUCK", "LEFTOVER", "REFUSED", "EXIT")
"""Outcomes that must not be."""


class End(NamedTuple):
    """How a child ended: its exit code, what it said, and how many operations it came to."""

    code: int
    text: str
    operations: int = 0

    @property
    def sentence(self):
        lines = self.text.strip().splitlines()
        return lines[-1] if lines else ""


def preloaded():
    """Begin this process again with the shim before it, built where nobody looks."""
    if "CAI_FAULTS_SHIM" in os.environ:
        return ctypes.CDLL(os.environ["CAI_FAULTS_SHIM"])
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        sys.exit("no C compiler: the operations of a process can't be broken one by one")
    folder = tempfile.mkdtemp(prefix="cai-faults-")
    library = f"{folder}/shim.so"
    words = [compiler, "-O1", "-shared", "-fPIC", "-o", library, str(HERE / "shim.c"), "-ldl"]
    subprocess.run(words, check=True)
    own = {
        "LD_PRELOAD": library, "CAI_FAULTS_SHIM": library, "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0",
    }  # fmt: skip
    os.execve(sys.executable, [sys.executable, "-m", "tests.faults", *sys.argv[1:]],
              {**os.environ, **own})  # fmt: skip


class Lab:
    """Runs stages in children, and knows what they should make."""

    def __init__(self, shim, folder, small=SMALL):
        from hydra import compose, initialize_config_dir

        from cai import run as job
        from cai.composition import CONF, schema, typed
        from cai.contracts.table import stages

        self.shim, self.folder = shim, Path(folder)
        self.small = (*small, f"data.folder={_little_data(self.folder / 'data')}")
        schema()
        self.table = stages()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            self.config = typed(compose("config", overrides=list(self.small)))
        for stage in STAGES:  # what a stage imports is imported once, before children are forked
            __import__(f"cai.stages.{stage}")
        job.quieten()
        self.whole = self.folder / "whole"
        self.trial = uuid.uuid4().hex
        self._made, self._operations = {}, {}
        gc.freeze()  # what is loaded need not be looked through by every child

    def made(self):
        """Make the whole chain once, undisturbed, and return its checksums."""
        if not self._made:
            end = self.child(lambda: self.work(self.whole, "evaluate"))
            assert end.code == 0, end.text
            self._made = checksums(self.whole)
        return self._made

    def work(self, outputs, stage):
        """Bring a stage up to date in this process."""
        from dataclasses import replace

        from cai.pipeline.execute import execute
        from cai.pipeline.plan import plan
        from cai.pipeline.store import Store

        logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s", force=True)
        config = replace(self.config, stage=stage, outputs=str(outputs))
        store = Store(outputs / "artifacts")
        execute(plan(config, store, self.table), config, store, outputs / "job")

    def operations(self, stage):
        """Count the operations of a stage that nothing disturbs."""
        if stage not in self._operations:
            outputs = self.folder / "counted"
            self.upto(stage, outputs)
            end = self.child(lambda: self.work(outputs, stage), (COUNT, 0), outputs)
            assert end.code == 0, end.text
            self._operations[stage] = end.operations
        return self._operations[stage]

    def upto(self, stage, outputs, whole=None):
        """Lay out the finished results that a stage is made from, without a second copy of them."""
        before = STAGES[: STAGES.index(stage)] if stage != "judge" else ()
        shutil.rmtree(outputs, ignore_errors=True)
        (outputs / "artifacts").mkdir(parents=True)
        for name in before:
            for folder in ((whole or self.whole) / "artifacts").glob(f"{name}-*"):
                shutil.copytree(folder, outputs / "artifacts" / folder.name, copy_function=os.link)

    def judged(self, end, outputs, stage, may_refuse=False, whole=None):
        """Say in a word what came of a run after a fault, whose end and results are given."""
        made = self.made() if whole is None else checksums(whole)
        expected = {n: files for n, files in made.items() if n.startswith(f"{stage}-")}
        found = checksums(outputs)
        if end.code == STUCK:
            return "STUCK"
        if "Traceback" in end.text or end.code not in {0, 1}:
            return "TRACEBACK"
        if end.code == 1:
            return "a sentence" if may_refuse else "REFUSED"
        same = all(found.get(name) == files for name, files in expected.items())
        return "same" if same else "DIFFERENT"

    def child(self, work, fault=None, root=None, stop=None, scratch=None):
        """Do something in a child.

        Args:
            work: What.
            fault: Mode and number of the operation to break.
            root: The folder whose files are watched.
            stop: Signal, the processor time after which it is sent, and to whom.
            scratch: Folder for temporary files; that of everybody else if it is left out.
        """
        with tempfile.TemporaryFile() as said:
            counted, count = os.pipe()
            process = os.fork()
            if process == 0:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
                os.close(counted)
                os.environ[MARK] = self.trial
                if scratch:
                    os.environ["TMPDIR"] = tempfile.tempdir = str(scratch)
                self._end(work, fault or (COUNT, 0), root, count)
            os.close(count)
            code = wait(process, stop, self.trial)
            said.seek(0)
            number = os.read(counted, 20)
            os.close(counted)
            self.last = End(code, said.read().decode(errors="replace"), int(number or 0))
            return self.last

    def _end(self, work, fault, root, count):
        """Work and leave, without what the parent would do at its end."""
        from cai.sentences import sentence_of

        code = 70
        try:
            mode, number = fault
            self.shim.fault_arm(str(root or "").encode(), mode, ctypes.c_long(number), 28)
            work()
            code = 0
        except KeyboardInterrupt:
            code = 130
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        except BaseException as error:  # noqa: BLE001 - a traceback is what is looked for
            if (sentence := sentence_of(error)) is None:
                traceback.print_exc()
            else:
                sys.stderr.write(f"{sentence}\n")
                code = 1
        finally:
            sys.stderr.flush()
            os.write(count, str(self.shim.fault_count()).encode())
            os._exit(code)


def _little_data(folder):
    """Write the first rows of the built-in data, which is read and held out again and again."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in (ROOT / "cai/data/builtin").glob("*.jsonl"):
        rows = path.read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / path.name).write_text("".join(rows[:LITTLE]), encoding="utf-8")
    return folder


def checksums(outputs):
    """Return the checksums of all finished results, by their names."""
    found = {}
    for path in sorted((outputs / "artifacts").glob("*/artifact.json")):
        if path.parent.suffix == "":
            found[path.parent.name] = json.loads(path.read_text())["files"]
    return found


def leftovers(outputs):
    """Name what lies among the results and is none; locks are kept."""
    return sorted(
        path.name
        for path in (outputs / "artifacts").iterdir()
        if path.suffix not in {"", ".lock"} and not path.name.startswith(".")
    )
