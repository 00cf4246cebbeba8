"""Conversations with two unnamed systems at once; what has been said is on the disk."""

from __future__ import annotations

import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import NamedTuple, Protocol

from cai.arena.choosing import CHOICES, choice_row
from cai.arena.conversations import Exchange, Talk, read_talk
from cai.arena.runs import Run
from cai.data.choices import append_choice
from cai.dialogue import Conversation, to_messages
from cai.errors import UserError
from cai.jsonl import Document
from cai.seeds import seed_of

LONGEST = 4000
"""Letters that a person may say at once."""


class Voice(NamedTuple):
    """A system of a run."""

    run: str
    system: str


class Speaks(Protocol):
    """What a conversation needs of the systems."""

    def check(self, conversation: Conversation) -> None:
        """Refuse a conversation to which there is no room for a reply."""
        ...

    def reply(self, voice: Voice, conversation: Conversation, seed: int) -> Iterator[str]:
        """Yield a reply as it grows."""
        ...


@dataclass
class _Growing:
    """Replies in the making, and what went wrong with them."""

    texts: list[str] = field(default_factory=lambda: ["", ""])
    fault: str | None = None
    done: threading.Event = field(default_factory=threading.Event)


class TalkDesk:
    """Leads conversations, for any number of people at once.

    A person who goes away finds the conversation as it was left; replies that are in the making
    are made to their end meanwhile, or again after the desk itself was closed.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        pairs: Sequence[tuple[str, str, str]],
        load: Callable[[], Speaks],
    ) -> None:
        """Take up the conversations so far.

        Args:
            runs: Whose systems can be talked to.
            pairs: A run and two of its systems, each.
            load: Loads them, when they are needed.
        """
        self._runs = {run.name: run for run in runs}
        self._pairs = list(pairs)
        self._load = load
        self._speaks: Speaks | None = None
        self._growing: dict[str, _Growing] = {}
        self._lock, self._loading = threading.RLock(), threading.Lock()
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._talks: dict[str, Talk] = {}
        for run in runs:
            for path in sorted(run.talks.glob("*.json"), key=lambda path: path.stat().st_mtime):
                talk = read_talk(path)
                self._talks[talk.id] = talk

    def current(self, annotator: str, axis: str) -> Talk:
        """Return a person's conversation: the one that goes on, or a new one.

        Raises:
            UserError: If there is nobody to talk to.
        """
        with self._lock:
            mine = [t for t in self._talks.values() if (t.annotator, t.axis) == (annotator, axis)]
            if mine and not mine[-1].ended:
                return mine[-1]
            if not self._pairs:
                raise UserError("There are no two systems here that can be talked to.")
            had = Counter((talk.run, *talk.pair) for talk in mine)
            everybody = Counter((talk.run, *talk.pair) for talk in self._talks.values())
            run, *pair = min(self._pairs, key=lambda pair: (had[pair], everybody[pair]))
            name = f"chat-{secrets.token_hex(6)}"
            talk = Talk(name, annotator, axis, run, (pair[0], pair[1]))
            self._talks[talk.id] = talk
            return talk

    def say(self, talk: Talk, text: str) -> Talk:
        """Say something; both systems begin to reply.

        Raises:
            UserError: If there is nothing to reply to, no room for a reply, or a choice is due.
        """
        text = text.encode("utf-8", "replace").decode().strip()
        if not text or len(text) > LONGEST:
            raise UserError(f"Please write 1 to {LONGEST} letters.")
        with self._lock:
            talk = self._talks[talk.id]
            if talk.last is not None:
                raise UserError("Please choose one of the two replies first.")
            # Sides are drawn in blocks of two, so that each system is as often on the left.
            number = len(talk.exchanges)
            turned = (seed_of("side", talk.id, number // 2) + number) % 2
            exchange = Exchange(text, talk.pair[::-1] if turned else talk.pair)
            talk = self._keep(replace(talk, exchanges=[*talk.exchanges, exchange]))
        self.follow(talk)
        return talk

    def follow(self, talk: Talk) -> None:
        """Have the replies made that are due."""
        with self._lock:
            talk = self._talks[talk.id]
            due = talk.last is not None and talk.last.replies is None
            if due and talk.id not in self._growing:
                self._growing[talk.id] = _Growing()
                self._threads = [one for one in self._threads if one.is_alive()]
                thread = threading.Thread(target=self._answer, args=(talk,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def seen(self, talk: Talk) -> tuple[Talk, list[str] | None]:
        """Return a conversation as it is now, and the replies in the making; None if none are.

        Raises:
            UserError: If they could not be made; what was said is taken back then.
        """
        with self._lock:
            talk, growing = self._talks[talk.id], self._growing.get(talk.id)
            if growing is None:
                return talk, None
            if growing.fault is None:
                return talk, list(growing.texts)
            del self._growing[talk.id]
            self._keep(replace(talk, exchanges=talk.exchanges[:-1]))
            raise UserError(growing.fault)

    def wait(self, talk: Talk, seconds: float) -> None:
        """Wait for the replies in the making, but not for long."""
        if growing := self._growing.get(talk.id):
            growing.done.wait(seconds)

    def choose(self, talk: Talk, said: str) -> Talk:
        """Keep a choice between the last two replies; without any there is nothing to keep.

        Raises:
            UserError: If it can't be written.
        """
        with self._lock:
            talk = self._talks[talk.id]
            last = talk.last
            if last is None or last.replies is None or said not in CHOICES:
                return talk
            about = {
                "prompt_id": talk.id,
                "sample": len(talk.exchanges) - 1,
                "messages": to_messages(talk.heard()),
                "replies": dict(zip("ab", last.replies, strict=True)),
            }
            row = choice_row(talk.annotator, talk.axis, last.systems, said) | about
            append_choice(self._runs[talk.run].choices, row)
            chosen = replace(last, choice=said)
            return self._keep(replace(talk, exchanges=[*talk.exchanges[:-1], chosen]))

    def end(self, talk: Talk) -> None:
        """End a conversation; the next one is with other systems."""
        with self._lock:
            if self._talks[talk.id].exchanges:
                self._keep(replace(self._talks[talk.id], ended=True))

    def close(self) -> None:
        """Break off the replies in the making, which the next desk makes again.

        A network must not be at work when Python ends, which would abort the process.
        """
        self._closed = True
        for thread in self._threads:
            thread.join()

    def _answer(self, talk: Talk) -> None:
        growing, last = self._growing[talk.id], talk.last
        assert last is not None
        try:
            if not self._spoken(talk, last.systems, growing.texts):
                return
            with self._lock:
                made = replace(last, replies=(growing.texts[0], growing.texts[1]))
                self._keep(replace(talk, exchanges=[*talk.exchanges[:-1], made]))
                del self._growing[talk.id]
        except UserError as error:
            growing.fault = str(error)
        except Exception as error:  # noqa: BLE001 - nobody else would hear of it
            growing.fault = f"The systems can't reply: {error!r}"
        finally:
            growing.done.set()

    def _spoken(self, talk: Talk, systems: Sequence[str], texts: list[str]) -> bool:
        """Let both systems speak; return False if the desk was closed meanwhile."""
        speaks, heard = self._loaded(), talk.heard()
        speaks.check(heard)
        for side, system in enumerate(systems):
            seed = seed_of("talk", talk.id, len(talk.exchanges), side)
            for texts[side] in speaks.reply(Voice(talk.run, system), heard, seed):
                if self._closed:
                    return False
        return True

    def _loaded(self) -> Speaks:
        with self._loading:
            if self._speaks is None:
                self._speaks = self._load()
            return self._speaks

    def _keep(self, talk: Talk) -> Talk:
        path = self._runs[talk.run].talks / f"{talk.id}.json"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            Document[Talk](path, Talk).write(talk)
        except OSError as error:
            raise UserError(
                f"what was said was not kept, for {path} can't be written ({error.strerror})"
            ) from error
        self._talks[talk.id] = talk
        return talk


def pairs_of(run: Run, systems: Sequence[str]) -> list[tuple[str, str, str]]:
    """Let every two systems of a run meet."""
    return [(run.name, a, b) for a, b in combinations(systems, 2)]
