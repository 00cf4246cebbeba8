"""The parts of the page as HTML, in which every text of a model or a person is inert."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from html import escape
from importlib.resources import files

from cai.arena.conversations import Exchange, Talk
from cai.arena.vote import Progress, Shown
from cai.arena.words import QUESTIONS, TASKS
from cai.dialogue import Conversation, Role
from cai.terminal import readable

SPEAKERS = {Role.HUMAN: "Person", Role.ASSISTANT: "Assistant"}
_TEMPLATE = {ord(letter): f"&#{ord(letter)};" for letter in "{}$`"}
"""What the page's own templates would read."""
WAITING = '<span class="waiting" aria-label="is being written">...</span>'


def inert(text: str) -> str:
    """Return a text as HTML that shows it and does nothing else.

    Marks that turn the direction of writing are left out, and what a template could read is
    written as numbers.
    """
    return escape(readable(text), quote=True).translate(_TEMPLATE)


@cache
def asset(name: str) -> str:
    """Return the style sheet or the script."""
    return (files("cai.arena") / name).read_text(encoding="utf-8")


def head(annotator: str, axis: str, task: str, progress: Progress | None = None) -> str:
    """Say who is here, what is asked, and how far they are."""
    told = QUESTIONS[axis]
    count = bar = ""
    if progress is not None:
        share = 100 * progress.done / max(1, progress.total)
        count = f'<span class="count">{progress.done} of {progress.total}</span>'
        bar = f'<div class="track"><i style="width:{share:.1f}%"></i></div>'
    question = told.begin if task == "chat" else told.short
    return (
        f'<header><p class="who"><span>{inert(annotator)}</span>'
        f"<span>{inert(TASKS[task])}</span>{count}</p>{bar}"
        f"<h1>{inert(question)}</h1>"
        f"<p>{inert(told.short + ' ' if task == 'chat' else '')}{inert(told.told)}</p></header>"
    )


def ballot(shown: Shown) -> str:
    """Show a prompt and two replies."""
    replies = _pair((shown.left.text, shown.right.text))
    return (
        f'<article data-key="{shown.ballot.key}">{_said(shown.ballot.messages)}{replies}</article>'
    )


def conversation(talk: Talk, growing: Sequence[str] | None) -> str:
    """Show what was said, and the two replies between which a choice is due or that grow."""
    parts = []
    for exchange in talk.exchanges:
        parts.append(_turn("You", exchange.said, "person"))
        if exchange.choice is not None:
            parts.append(_turn("Assistant", exchange.kept, "assistant"))
        else:
            parts.append(_replies(exchange, growing))
    return f'<article data-key="{talk.id}-{len(talk.exchanges)}">{"".join(parts)}</article>'


def note(text: str, kind: str = "note") -> str:
    """Show a sentence."""
    return f'<p class="{kind}" role="status">{inert(text)}</p>'


def _replies(exchange: Exchange, growing: Sequence[str] | None) -> str:
    if exchange.replies is not None:
        return _pair(exchange.replies)
    return _pair(growing or ("", ""), growing=True)


def _pair(texts: Sequence[str], growing: bool = False) -> str:
    shown = [
        f'<section class="reply"><h2>Reply {number}</h2>'
        f'<div class="text">{inert(text)}{WAITING if growing and not text else ""}</div></section>'
        for number, text in enumerate(texts, start=1)
    ]
    return f'<div class="pair">{"".join(shown)}</div>'


def _said(messages: Conversation) -> str:
    turns = [_turn(SPEAKERS[turn.role], turn.text, turn.role.name.lower()) for turn in messages]
    return f'<div class="talk">{"".join(turns)}</div>'


def _turn(who: str, text: str, kind: str) -> str:
    kind = {"human": "person"}.get(kind, kind)
    body = f'<h2>{who}</h2><div class="text">{inert(text)}</div>'
    return f'<section class="turn {kind}">{body}</section>'
