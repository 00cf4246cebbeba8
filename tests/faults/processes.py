"""Processes that a trial has started, also those that these have started: who they are and do."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

SILENCE = 60.0
"""Seconds after which a child is stuck."""
STUCK = 99
"""What stands for the exit code of who had to be ended."""
MARK = "CAI_FAULTS_TRIAL"
"""In the environment of all that a trial starts: which one it is."""
LOOK = 1.0
"""Seconds between two looks at all processes of the machine."""


class Watch:
    """Sees whether a child and those that it has started get on, however busy the machine is."""

    def __init__(self, process, trial):
        self.process, self.trial = process, trial
        self.moved = self.looked = time.monotonic()
        self.worked = self.others = 0.0

    def stuck(self):
        """Tell whether it has worked for a minute, or nobody of its family for a minute."""
        now = time.monotonic()
        if (seconds := _seconds(self.process)) > self.worked:
            self.worked, self.moved = seconds, now
        if now - self.looked > LOOK:
            self.looked = now
            if (seconds := sum(map(_seconds, family(self.trial)))) != self.others:
                self.others, self.moved = seconds, now
        return self.worked > SILENCE or now - self.moved > SILENCE


def wait(process, stop, trial):
    """Wait for a child; send a signal when it is time, and end one that is stuck.

    Args:
        process: The child.
        stop: Signal, the child's processor time after which it is sent, and to whom: "first" is
            the child, "second" who works with it, "all" both.
        trial: Mark of the trial, in the environment of what the child starts.
    """
    watch = Watch(process, trial)
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if watch.stuck():
            for one in (process, *family(trial)):
                _send(one, signal.SIGKILL)
            os.waitpid(process, 0)
            return STUCK
        if stop and watch.worked > stop[1] and (reached := _whom(process, stop[2], trial)):
            for one in reached:
                _send(one, stop[0])
            stop = None
        time.sleep(0.005)


def _whom(process, name, trial):
    """Return the processes of a name; none as long as the second is not there."""
    if name == "first":
        return [process]
    second = [one for one in family(trial) if b"hydra.job" in _read(one, "cmdline")]
    return second if name == "second" or not second else [process, *second]


def family(trial):
    """Return the processes that a trial has started, those that were forked for it left out."""
    mark = f"{MARK}={trial}".encode()
    numbers = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
    return [one for one in numbers if mark in _read(one, "environ").split(b"\0")]


def gone(trial, seconds=300.0):
    """Wait for all that a trial has started to end, also on a busy machine; name what does not."""
    until = time.monotonic() + seconds
    while (left := family(trial)) and time.monotonic() < until:
        time.sleep(0.1)
    said = [_read(one, "cmdline").replace(b"\0", b" ").decode(errors="replace") for one in left]
    for one in left:
        _send(one, signal.SIGKILL)
    return said


def _read(process, name):
    try:
        return Path(f"/proc/{process}/{name}").read_bytes()
    except OSError:  # it has ended
        return b""


def _send(process, number):
    with suppress(ProcessLookupError):
        os.kill(process, number)


def _seconds(process):
    """Return the processor time of a process."""
    fields = _read(process, "stat").decode(errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0
