"""What is broken, and what counts as held: the same checksums in the end, or one sentence."""

import os
import random
import resource
import shutil
import signal
import subprocess
from collections import Counter
from functools import partial as partial_of

from .kills import command, kills
from .lab import FULL, KILL, POWER, STAGES, leftovers

FULL_SAYS = ("disk is full", "No space left", "largest file that is allowed")
"""What the sentence about a disk must say."""
FEW = ("revise", "pm")
"""Stages that the short form looks at: one that samples, one that trains."""


def writes(lab, long):
    """Break every operation of every stage: a kill, a power cut, a full disk; then go on."""
    names = {KILL: "kill", POWER: "power cut", FULL: "full disk"}
    outputs, trials = lab.folder / "writes", []
    for stage in STAGES if long else FEW:
        trials += [
            (f"{stage}: {name}", partial_of(_one_write, lab, stage, outputs, (mode, number)))
            for number in range(1, lab.operations(stage) + 1)
            for mode, name in names.items()
        ]
    return trials


def _one_write(lab, stage, outputs, fault):
    lab.upto(stage, outputs)
    first = lab.child(partial_of(lab.work, outputs, stage), fault, outputs)
    if fault[0] == FULL and first.code == 0:  # there was nothing to write any more
        return lab.judged(first, outputs, stage)
    if fault[0] == FULL:
        if "Traceback" in first.text or first.code != 1 or "disk is full" not in first.sentence:
            return "TRACEBACK"
    elif first.code != -signal.SIGKILL:
        return "STUCK" if first.code == 99 else "TRACEBACK"
    return _resumed(lab, stage, outputs)


def _resumed(lab, stage, outputs):
    """Run again without a fault; nothing may be lying about when that is done."""
    again = lab.child(partial_of(lab.work, outputs, stage))
    outcome = lab.judged(again, outputs, stage)
    return "LEFTOVER" if outcome == "same" and leftovers(outputs) else outcome


# Damage


def _emptied(path):
    path.write_bytes(b"")


def _cut(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _zeroed(path):
    path.write_bytes(bytes(path.stat().st_size))


def _garbage(path):
    path.write_bytes(random.Random(path.name).randbytes(path.stat().st_size or 100))


def _folder(path):
    path.unlink()
    path.mkdir()


def _gone(path):
    path.unlink()


def _pipe(path):
    path.unlink()
    os.mkfifo(path)


def _lines_dropped(path):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))


HARMS = {
    "emptied": _emptied, "cut": _cut, "zeroed": _zeroed, "garbage": _garbage, "a folder": _folder,
    "gone": _gone, "a pipe": _pipe, "short of a line": _lines_dropped,
}  # fmt: skip


def partial(lab, long):
    """Harm every file of results in the making, at several points of each stage."""
    trials = []
    for stage in STAGES if long else FEW:
        for share in (0.5, 0.9) if long else (0.8,):
            kept = lab.folder / f"kept-{stage}-{share}"
            _stop(lab, stage, kept, share)
            files = _files(kept, f"{stage}-*.partial")
            trials += [
                (f"{stage}: {harm}", partial_of(_one_harm, lab, stage, kept, (name, harm)))
                for name in files
                for harm in HARMS
            ]
    return trials


def _one_harm(lab, stage, kept, chosen):
    """Harm one file of what is kept, in a copy of it, and go on."""
    outputs, (name, harm) = lab.folder / "harmed", chosen
    shutil.rmtree(outputs, ignore_errors=True)
    shutil.copytree(kept, outputs, copy_function=os.link)
    victim = outputs / "artifacts" / name
    data = victim.read_bytes()
    victim.unlink()  # the link, so that what is kept stays as it is
    victim.write_bytes(data)
    HARMS[harm](victim)
    return lab.judged(lab.child(partial_of(lab.work, outputs, stage)), outputs, stage, True)


def _stop(lab, stage, outputs, share):
    """Leave what a kill leaves when a stage has done a share of its operations."""
    if outputs.exists():
        return
    last = round(lab.operations(stage) * share)
    lab.upto(stage, outputs)
    lab.child(partial_of(lab.work, outputs, stage), (KILL, last), outputs)


def _files(outputs, pattern):
    root = outputs / "artifacts"
    return sorted(
        path.relative_to(root).as_posix()
        for folder in root.glob(pattern)
        for path in folder.rglob("*")
        if path.is_file()
    )


def store(lab, long):
    """Harm every file of every finished result; the last stage is asked for again."""
    lab.made()
    return [
        (f"{name.partition('-')[0]}: {harm}",
         partial_of(_one_harm, lab, "evaluate", lab.whole, (name, harm)))
        for name in _files(lab.whole, "*")
        for harm in HARMS
    ]  # fmt: skip


# Disks, with the command itself


SIZES = (
    4, 8, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512,
    640, 768, 896, 1024, 1280, 1536, 1792, 2048, 2560,
)  # fmt: skip
"""KiB of a disk: 31 of them, from one that holds nothing to one that nearly holds it all."""


def disks(lab, long):
    """Run the command on small disks, or with a limit of file sizes, then without; 31 of each."""
    trials = [(f"files of {size:5} KiB", partial_of(_one_limit, lab, size)) for size in SIZES]
    if os.geteuid() == 0:  # who else can't mount a disk
        trials += [(f"disk of {size:5} KiB", partial_of(_one_disk, lab, size)) for size in SIZES]
    return trials


def _one_limit(lab, size):
    outputs, stage = lab.folder / "limited", "sft"
    shutil.rmtree(outputs, ignore_errors=True)
    work = partial_of(command, lab, outputs, stage)

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size * 1024, size * 1024))
        work()

    return _full_then_free(lab, (limited, work), outputs, stage, lambda: None)


def _one_disk(lab, size):
    disk, stage = lab.folder / "disk", "sft"
    disk.mkdir(exist_ok=True)
    work = partial_of(command, lab, disk / "o", stage)
    _mount("-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(disk))
    try:
        free = partial_of(_mount, "-o", "remount,size=64m", str(disk))
        return _full_then_free(lab, (work, work), disk / "o", stage, free)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def _full_then_free(lab, works, outputs, stage, free):
    """Work where there is little room, which takes one sentence, and then where there is enough."""
    first = lab.child(works[0])
    outcome = lab.judged(first, outputs, stage, may_refuse=True)
    if outcome != "a sentence":
        return outcome
    if not any(words in first.sentence for words in FULL_SAYS):
        return "TRACEBACK"
    free()
    outcome = lab.judged(lab.child(works[1]), outputs, stage)
    return "a sentence, then same" if outcome == "same" else outcome


def _mount(*words):
    subprocess.run(["mount", *words], check=True)


TRIALS = {"writes": writes, "partial": partial, "store": store, "kills": kills, "disks": disks}


def table(counts):
    """Lay out how often which outcome was seen, by what was done."""
    rows = sorted({label for label, _ in counts})
    outcomes = sorted({outcome for _, outcome in counts})
    width = max(map(len, rows), default=0)
    lines = [" " * width + "".join(f"{name:>23}" for name in outcomes)]
    for row in rows:
        lines.append(f"{row:{width}}" + "".join(f"{counts[row, o]:23}" for o in outcomes))
    totals = Counter()
    for (_, outcome), n in counts.items():
        totals[outcome] += n
    lines.append(f"{'all':{width}}" + "".join(f"{totals[o]:23}" for o in outcomes))
    return "\n".join(lines)
