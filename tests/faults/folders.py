"""Model folders that somebody else made badly, or on purpose: no code of theirs runs.

``python -m tests.faults.folders`` loads each in a process of its own, which may take as much memory
again as it has and a minute of the processor, and prints how they ended.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir

from cai.composition import CONF, schema, typed
from cai.dialogue import human
from cai.lm.generate import Sampling
from cai.lm.load import load_chat, load_model
from cai.lm.tiny import tiny_model, tiny_tokenizer
from cai.sentences import sentence_of

from .folder_changes import Change, Folder
from .folder_kinds import KINDS

SECONDS = 60
ROOM = 3 << 30
"""Bytes of address space beside those that the parent has."""


schema()
with initialize_config_dir(str(CONF), version_base="1.3"):
    BASE = typed(compose("config", ["model=folder", "model.path=x", "hardware=cpu"]))


def sound(path: Path) -> Path:
    """Save a small model that is in order."""
    tiny_model(512).save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


def use(path: Path) -> None:
    """Do what a run does with a model before it samples, and sample."""
    config = replace(BASE.model, path=str(path), context=256)
    load_chat(config).probe.encode()
    model = load_model(config, BASE.hardware)
    prompt = model.chat.prompt((human("a" * 30 + "?"),))
    model.sampler.generate(None, [prompt], [1], Sampling(4))


def outcome(change: Change, base: Path, folder: Path) -> tuple[str, str]:
    """Spoil a copy of a sound folder and use it in a process of its own."""
    made = Folder(folder / "model", folder / "code-has-run")
    shutil.copytree(base, made.path)
    change(made)
    said = folder / "said"
    child = os.fork()
    if child == 0:
        os._exit(_in_child(made.path, said))
    _, status = os.waitpid(child, 0)
    if made.canary.exists():
        return "CODE RAN", ""
    words = said.read_text(errors="replace") if said.exists() else ""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        hung = number in {signal.SIGALRM, signal.SIGXCPU, signal.SIGKILL}
        return ("hang" if hung else f"signal {number}"), words
    return {0: "used", 1: "sentence"}.get(os.WEXITSTATUS(status), "traceback"), words


def _in_child(path: Path, said: Path) -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
    signal.alarm(10 * SECONDS)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    try:
        use(path)
    except BaseException as error:  # noqa: BLE001 - whatever comes out here is a traceback
        sentence = sentence_of(error)
        said.write_text(sentence or traceback.format_exc(), errors="replace")
        return 1 if sentence else 3
    return 0


WELL = {"used", "sentence"}


def chosen(word: str) -> Iterator[tuple[str, str, Change]]:
    """Yield the kinds whose name has a word in it: where something is wrong, what, and how."""
    for where, kinds in KINDS.items():
        for name, change in kinds.items():
            if word in f"{where}: {name}":
                yield where, name, change


def outcomes(word: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield where something is wrong, what, how it ended and what was said."""
    with tempfile.TemporaryDirectory() as base:
        good = sound(Path(base) / "sound")
        use(good)  # so that every library is imported before the forks
        for where, name, change in chosen(word):
            with tempfile.TemporaryDirectory() as folder:
                yield where, name, *outcome(change, good, Path(folder))


def main() -> int:
    """Run all, or those whose name has the word that is given."""
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    torch.set_num_threads(1)
    table: Counter[tuple[str, str]] = Counter()
    for where, name, end, said in outcomes(word):
        table[where, end] += 1
        if word or end not in WELL:
            sys.stdout.write(f"{where}: {name}: {end}: {said[-400:]!a}\n")
            sys.stdout.flush()
    for where in KINDS:
        ends = [f"{n} {end}" for (place, end), n in sorted(table.items()) if place == where]
        sys.stdout.write(f"{where:12}{', '.join(ends)}\n")
    bad = sum(n for (_, end), n in table.items() if end not in WELL)
    sys.stdout.write(f"{table.total()} folders, {bad} of them ended badly\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
