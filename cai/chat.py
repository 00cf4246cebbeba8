"""``python -m cai.chat RUN``: talk to the systems of a finished run in a terminal.

RUN is the folder of a run that reached stage=evaluate, or of its result. Without ``--system`` two
systems reply that are not named, you choose after each exchange which reply goes on, and the choice
is kept where the arena keeps it. With one ``--system`` it alone replies; with two they are named,
and no choice is kept, for it would not be blind.

An empty line or /new begins a new conversation, /quit or the end of the input ends the program.
"""

from __future__ import annotations

import argparse
import getpass
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from cai.arena.choosing import name_of
from cai.arena.conversations import SILENCE, Talk
from cai.arena.runs import Run, open_run
from cai.arena.talk import Speaks, TalkDesk, Voice, pairs_of
from cai.arena.weights import speakers, weights_of
from cai.arena.words import QUESTIONS
from cai.command import check_room, command
from cai.dialogue import Conversation, assistant, human
from cai.errors import UserError
from cai.seeds import seed_of
from cai.terminal import readable

NEW, QUIT = {"", "/new"}, "/quit"
KEYS = {"1": "left", "2": "right", "0": "tie"}
KEPT = "every choice is kept, and the same command goes on from there"
NOT_KEPT = "of what named systems say nothing is kept"
ASKED = "1 or 2: which reply goes on? 0: they are equal > "

with suppress(ImportError):  # where it is there, input() lets a line be edited and be long
    import readline  # noqa: F401


class Over(Exception):
    """The person wants to stop."""


@dataclass
class Terminal:
    """Where a person types and reads; what a model says is shown without control characters.

    Attributes:
        read: Asks for a line.
        out: Takes what is shown.
    """

    read: Callable[[str], str] = input
    out: TextIO = field(default_factory=lambda: sys.stdout)

    def ask(self, words: str) -> str:
        """Ask for a line.

        Raises:
            Over: At the end of the input, or if the person wants to stop.
        """
        try:
            line = self.read(words).strip()
        except EOFError as error:
            raise Over from error
        if line == QUIT:
            raise Over
        return line.encode("utf-8", "replace").decode()

    def tell(self, text: str) -> None:
        """Show a line."""
        self.out.write(readable(text) + "\n")
        self.out.flush()

    def stream(self, who: str, growing: Iterator[str]) -> str:
        """Show a reply while it grows, and return it."""
        self.out.write(f"\n{readable(who)}: ")
        shown = text = ""
        for text in growing:
            now = readable(text)
            if now.startswith(shown):
                self.out.write(now[len(shown) :])
                self.out.flush()
                shown = now
        self.out.write("\n")
        self.out.flush()
        return text


def talk(terminal: Terminal, speaks: Speaks, run: Run, names: Sequence[str], seed: int) -> None:
    """Talk to one named system, or to two at once."""
    heard: Conversation = ()
    number = 0
    while True:
        said = terminal.ask("\nyou > ")
        if said in NEW:
            heard = ()
            terminal.tell("(a new conversation)")
            continue
        replies = []
        try:
            for name in names:
                growing = speaks.reply(
                    Voice(run.name, name), (*heard, human(said)), seed_of("chat", seed, number)
                )
                replies.append(terminal.stream(name, growing))
        except UserError as error:
            terminal.tell(str(error))
            continue
        number += 1
        kept = replies[0] if len(names) == 1 or _choose(terminal) != "right" else replies[1]
        heard = (*heard, human(said), assistant(kept.strip() or SILENCE))


def compare(terminal: Terminal, desk: TalkDesk, annotator: str, axis: str) -> None:
    """Talk to two systems that are not named, and keep each choice."""
    terminal.tell(f"{QUESTIONS[axis].short} {QUESTIONS[axis].told}")
    while True:
        now = desk.current(annotator, axis)
        if now.last is not None:
            _decide(terminal, desk, now)
            continue
        said = terminal.ask("\nyou > ")
        if said in NEW:
            desk.end(now)
            terminal.tell("(a new conversation, with others)")
            continue
        try:
            _decide(terminal, desk, desk.say(now, said))
        except UserError as error:
            terminal.tell(str(error))


def _decide(terminal: Terminal, desk: TalkDesk, now: Talk) -> None:
    desk.follow(now)
    for side in (0, 1):
        terminal.stream(f"reply {side + 1}", _growing(desk, now, side))
    desk.choose(now, _choose(terminal))


def _growing(desk: TalkDesk, now: Talk, side: int) -> Iterator[str]:
    """Yield a reply until the other one begins, or both are done."""
    while True:
        now, texts = desk.seen(now)
        if texts is None:
            last = now.last
            if last is not None and last.replies is not None:
                yield last.replies[side]
            return
        yield texts[side]
        if side == 0 and texts[1]:
            return
        desk.wait(now, 0.1)


def _choose(terminal: Terminal) -> str:
    while (said := terminal.ask(ASKED)) not in KEYS:
        pass
    return KEYS[said]


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError) as error:
        raise UserError("this login has no name: give yours with --name") from error


def converse(options: argparse.Namespace, terminal: Terminal) -> None:
    """Load the systems and talk until the person wants to stop.

    Raises:
        UserError: If a run or a system can't be used.
        Over: When the person has enough.
    """
    run = open_run(options.run)
    names = options.system or speakers(run)
    for name in names:
        weights_of(run, name)
    if options.system is None and len(names) < 2:
        raise UserError(f"{run.name} has no two systems left to compare: name one with --system")
    annotator = "" if options.system else name_of(options.name or _login())
    # Late, for it takes seconds, and a mistake on the command line is said at once.
    check_room()
    from cai.arena.voices import Manner, load_voices
    from cai.run import quieten

    quieten()
    manner = Manner(options.hardware, options.temperature, options.tokens)
    voices = load_voices([(run, name) for name in names], manner)
    terminal.tell("/new: a new conversation; /quit: enough")
    if options.system:
        talk(terminal, voices, run, options.system, options.seed)
        return
    terminal.tell(f"choices of {annotator} go to {run.choices}")
    with closing(TalkDesk([run], pairs_of(run, names), lambda: voices)) as desk:
        compare(terminal, desk, annotator, options.axis)


def main(arguments: Sequence[str] | None = None, terminal: Terminal | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m cai.chat", description="Talk to the systems of a finished run."
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run or its result")
    parser.add_argument("--system", action="append", metavar="NAME", help="who replies; up to two")
    parser.add_argument("--axis", choices=list(QUESTIONS), default="harmlessness",
                        help="what unnamed systems are compared on")  # fmt: skip
    parser.add_argument("--name", help="yours, in the file of choices; default: of your login")
    parser.add_argument("--temperature", type=float, metavar="T", help="default: the evaluation's")
    parser.add_argument("--tokens", type=int, metavar="N", help="longest reply")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31))
    parser.add_argument("--hardware", choices=["auto", "cpu", "gpu"], default="auto")
    options = parser.parse_args(arguments)
    if options.system and (
        len(options.system) > 2 or len(set(options.system)) < len(options.system)
    ):
        parser.error("--system can be given once, or twice with different names")
    if options.temperature is not None and not 0 <= options.temperature <= 5:
        parser.error(f"--temperature={options.temperature} must be in [0, 5]")
    if options.tokens is not None and options.tokens < 1:
        parser.error(f"--tokens={options.tokens} must be at least 1")

    def work() -> int:
        try:
            converse(options, terminal or Terminal())
        except (Over, KeyboardInterrupt) as end:
            sys.stdout.write("\n")  # what comes next begins on a line of its own
            if isinstance(end, KeyboardInterrupt):
                raise
        return 0

    return command(work, NOT_KEPT if options.system else KEPT)


if __name__ == "__main__":
    sys.exit(main())
