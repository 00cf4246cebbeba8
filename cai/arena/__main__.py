"""``python -m cai.arena RUN...``: let people compare finished runs' systems, and talk to them.

RUN is the folder of a run that reached stage=evaluate, or of its result. What people choose is
appended to ``outputs/arena/<result>.jsonl``, which ``python -m cai.report RUN`` shows and
``evaluate.opinions.human_choices`` takes.

The page is for this machine alone. With ``--host`` it is for others, too, and asks for a password:
the one in CAI_ARENA_PASSWORD, or one that is drawn and printed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cai.arena.ballots import SETS, Ballot, ballots_of
from cai.arena.place import Place, is_local, listen
from cai.arena.runs import Run, open_runs
from cai.arena.talk import Speaks, TalkDesk, pairs_of
from cai.arena.vote import VoteDesk
from cai.arena.weights import speakers
from cai.command import check_room, command
from cai.errors import UserError

PASSWORD = "CAI_ARENA_PASSWORD"


def open_arena(options: argparse.Namespace) -> int:
    """Serve the arena until Ctrl-C; return the exit status.

    Raises:
        UserError: If a run, what people said before, the port or the library can't be used.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    runs = open_runs(options.runs)
    ballots = {axis: ballots_of(runs, axis, options.ballots) for axis in SETS}
    password = os.environ.get(PASSWORD) or None
    if password is None and not is_local(options.host):
        password = secrets.token_urlsafe(9)
    place = Place(options.host, options.port, password)
    talks = talk_desk(runs, options.hardware)
    with listen(place) as taken, contextlib.closing(talks):
        blocks = _page(VoteDesk(runs, ballots), talks, login=password is not None)
        from cai.arena.serve import server_of

        server = server_of(blocks, place)
        sys.stdout.write("\n".join(_told(runs, ballots, place)) + "\n")
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[taken])
    return 0


def _page(votes: VoteDesk, talks: TalkDesk, *, login: bool) -> Any:
    """Build the page.

    Raises:
        UserError: If gradio is not there.
    """
    try:
        from cai.arena.page import Page, build
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise UserError("the arena needs gradio: pip install 'constitutional-ai[arena]'") from error
    return build(Page(votes, talks, login=login))


def _told(
    runs: Sequence[Run], ballots: Mapping[str, Sequence[Ballot]], place: Place
) -> Iterator[str]:
    """Say where the arena is and where choices go."""
    counted = " and ".join(f"{len(found)} on {axis}" for axis, found in ballots.items())
    yield f"{place.address}: pairs of replies to compare: {counted}"
    if place.password is not None:
        given = "" if os.environ.get(PASSWORD) else f", {place.password}"
        yield f"log in with any name and the password{given}"
    yield from (f"choices go to {run.choices}" for run in runs)


def talk_desk(runs: Sequence[Run], hardware: str) -> TalkDesk:
    """Make the desk for conversations; systems are loaded when somebody talks to them."""
    there = {run.name: speakers(run) for run in runs}
    pairs = [pair for run in runs for pair in pairs_of(run, there[run.name])]
    wanted = [(run, system) for run in runs for system in there[run.name]]

    def load() -> Speaks:
        # Late, for it takes seconds, and nobody may ever talk.
        check_room()
        from cai.arena.voices import Manner, load_voices
        from cai.run import quieten

        quieten()
        return load_voices(wanted, Manner(hardware))

    return TalkDesk(runs, pairs, load)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m cai.arena",
        description="Let people compare the systems of finished runs, and talk to them.",
        epilog=f"Beyond this machine a password is asked for: {PASSWORD}, or one that is printed.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="runs or their results")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--ballots", type=int, metavar="N", help="compare so many pairs per axis")
    parser.add_argument("--hardware", choices=["auto", "cpu", "gpu"], default="auto")
    options = parser.parse_args(arguments)
    if options.ballots is not None and options.ballots < 1:
        parser.error(f"--ballots={options.ballots} must be at least 1")
    if not 0 < options.port < 1 << 16:
        parser.error(f"--port={options.port} must be from 1 to 65535")
    return command(
        lambda: open_arena(options), "every choice is kept, and the same command goes on from there"
    )


if __name__ == "__main__":
    sys.exit(main())
