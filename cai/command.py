"""How every command ends: with a sentence, and an exit code that says why."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable

from cai import interrupt
from cai.errors import UserError
from cai.terminal import say

try:
    import resource
except ImportError:  # on Windows
    resource = None  # type: ignore[assignment]

GOES_ON = "the same command goes on where this one stopped"
NOBODY_READS = 141
"""What a shell shows of a command whose reader has gone: 128 and the number of SIGPIPE."""

LIBRARIES = 1 << 30
"""Bytes of address space that torch, transformers and peft take as soon as they are loaded."""


def check_room() -> None:
    """Look whether the libraries can be loaded; half way through, they end as they like.

    Raises:
        UserError: If this process may not have that much.
    """
    if resource is None:
        return
    allowed = resource.getrlimit(resource.RLIMIT_AS)[0]
    if allowed != resource.RLIM_INFINITY and allowed < LIBRARIES:
        raise UserError(
            f"ulimit -v leaves {allowed >> 20} MiB of address space, and the libraries alone take "
            f"{LIBRARIES >> 20}, so there is not enough memory: raise it, and run the same command"
        )


def command(work: Callable[[], int], goes_on: str = GOES_ON) -> int:
    """Do the work of a command and return its exit code.

    A mistake ends in 1, Ctrl-C in 130, SIGTERM in 143; a fault of the program keeps its traceback.

    Args:
        work: Returns the exit code.
        goes_on: What to tell somebody who interrupted it.
    """
    interrupt.listen()
    logging.raiseExceptions = False  # a log that can't be written is no reason to stop
    try:
        code = work()
        interrupt.check()
        sys.stdout.flush()
    except KeyboardInterrupt:
        say(f"Interrupted: {goes_on}.")
        code = interrupt.exit_code()
    except BrokenPipeError:
        code = NOBODY_READS
    except Exception as error:
        from cai.sentences import sentence_of

        sentence = sentence_of(error)
        if sentence is None:
            raise
        say(sentence)
        code = 1
    _let_go_of_closed_pipes()
    return code


def _let_go_of_closed_pipes() -> None:
    """Flush what was said; where nobody reads it, keep Python from complaining when it ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
