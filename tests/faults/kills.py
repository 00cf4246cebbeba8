"""Random signals to the command itself, alone or one of two processes, until it may get through."""

import importlib.util
import random
import shutil
import signal
import sys
from functools import partial as partial_of

from .lab import STAGES, leftovers
from .processes import STUCK, gone

ALONE = ("hardware=cpu",)
DDP = ("hardware=ddp", "hardware.devices=2", "hardware.accelerator=cpu")
OFF, OFFLINE = "tracking=off", "tracking=offline"
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
ENDS = {
    signal.SIGKILL: {-signal.SIGKILL},
    signal.SIGTERM: {128 + signal.SIGTERM},
    signal.SIGINT: {128 + signal.SIGINT},
}
"""How the command may end when it gets a signal, if it is not through before."""
LOST = {1, -signal.SIGKILL}
"""How it may end when the other process is lost: in a sentence, or by Lightning's launcher."""


def command(lab, outputs, stage="evaluate", hardware=ALONE, tracking=OFF):
    """Do what ``python -m cai`` does; a second process is started as Lightning does it."""
    import __main__
    from cai import run
    from cai.__main__ import main

    run.estimate = lambda steps, config: {}  # two seconds of measuring the machine
    __main__.__spec__ = importlib.util.find_spec("cai.__main__")  # what Lightning starts again
    chain = STAGES[: STAGES.index(stage) + 1] if stage != "judge" else (stage,)
    others = set(STAGES).difference(chain)  # whose nodes are not there
    words = [
        word
        for word in lab.small
        if word.partition(".")[0] not in others and word not in {*ALONE, OFF}
    ]
    sys.argv = ["cai", *words, *hardware, tracking, f"stage={stage}", f"outputs={outputs}"]
    sys.exit(main())


def kills(lab, long):
    """Send random signals to the command, three times, until it may get through.

    Of a hundred trials ten are of two processes, and a quarter has W&B track them offline.
    """
    trials = []
    for number in range(100):
        several, offline = number % 10 == 8, number % 4 == 0
        stage = STAGES[number // (10 if several else 4) % len(STAGES)]
        kinds = ["two processes"] * several + ["offline"] * offline
        label = f"{stage}: {', '.join(kinds) or 'one process'}"
        ways = (DDP if several else ALONE, OFFLINE if offline else OFF)
        trials.append((label, partial_of(_one_kill, lab, number, stage, ways)))
    return trials


def _one_kill(lab, number, stage, ways):
    outputs, scratch, rng = lab.folder / "kills", lab.folder / "scratch", random.Random(number)
    several = ways[0] is DDP
    whole = made_by_two(lab) if several else lab.whole
    lab.upto(stage, outputs, whole)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    work, struck = partial_of(command, lab, outputs, stage, *ways), False
    for _ in range(3):
        kind = rng.choice(SIGNALS)
        victim = rng.choice(("first", "second", "all")) if several else "first"
        struck |= kind is signal.SIGKILL and victim != "first"
        seconds = rng.uniform(0.05, 1.5)  # of work, on a machine that may be busy
        end = lab.child(work, stop=(kind, seconds, victim), scratch=scratch)
        if "Traceback" in end.text:
            return "TRACEBACK"
        if end.code not in {0, *ENDS[kind], *(LOST if several else ())}:
            return "STUCK" if end.code == STUCK else "EXIT"
    outcome = lab.judged(lab.child(work, scratch=scratch), outputs, stage, whole=whole)
    scraps = [] if struck else [path.name for path in scratch.glob("cai-*")]
    if outcome == "same" and (left := [*leftovers(outputs), *gone(lab.trial), *scraps]):
        sys.stdout.write(f"  left over: {left}\n")
        return "LEFTOVER"
    return outcome


def made_by_two(lab):
    """Return the folder of the whole chain, made by two processes that nothing disturbed."""
    outputs = lab.folder / "whole-by-two"
    if not outputs.exists():
        end = lab.child(partial_of(command, lab, outputs, "evaluate", DDP))
        assert end.code == 0, end.text
    return outputs
