"""The arena as a gradio page: it shows what the desks say and hands them what people do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import gradio as gr

from cai.arena import markup
from cai.arena.choosing import name_of
from cai.arena.conversations import Talk
from cai.arena.talk import TalkDesk
from cai.arena.vote import VoteDesk
from cai.arena.words import ALL_DONE, KEYS, NOTHING, QUESTIONS, TASKS, WELCOME
from cai.errors import UserError

GOING = """(name, task, axis) => {
  const query = new URLSearchParams({ as: name, do: task, on: axis });
  window.location.search = query.toString();
}"""
"""Entering is a link of one's own, to which a reload comes back."""
LEAVING = "() => { window.location.search = ''; }"
WRITING = """() => {
  window.scrollTo(0, document.body.scrollHeight);
  document.querySelector('#box textarea')?.focus({ preventScroll: true });
}"""
TO_TOP = "() => { window.scrollTo(0, 0); }"
QUIET = {"show_progress": "hidden", "api_visibility": "private"}


class Visit(NamedTuple):
    """Who is here, and what for."""

    annotator: str
    task: str
    axis: str


class Page:
    """What happens on the page."""

    def __init__(self, votes: VoteDesk, talks: TalkDesk, login: bool) -> None:
        """Take the desks.

        Args:
            votes: For comparing what an evaluation has sampled.
            talks: For talking.
            login: Whether people are known by the name that they have logged in with.
        """
        self._votes, self._talks, self._login = votes, talks, login

    def visit(self, request: gr.Request) -> Visit | None:
        """Read who is here from the address of the page; None before they have entered.

        Raises:
            UserError: If it is no name.
        """
        query = dict(request.query_params)
        task, axis = query.get("do"), query.get("on")
        if task not in TASKS or axis not in QUESTIONS:
            return None
        return Visit(name_of(request.username if self._login else query.get("as")), task, axis)

    def enter(self, request: gr.Request) -> list[Any]:
        """Show the door, or what somebody came for."""
        fault = ""
        try:
            visit = self.visit(request)
        except UserError as error:
            visit, fault = None, markup.note(str(error), "fault")
        task = visit.task if visit else None
        name = request.username if self._login else dict(request.query_params).get("as", "")
        return [
            gr.update(visible=visit is None),
            gr.update(visible=task == "vote"),
            gr.update(visible=task == "chat"),
            gr.update(visible=visit is not None),
            fault,
            # What somebody has begun to type stays.
            gr.update(value=name, interactive=not self._login) if name else gr.skip(),
        ]

    def ballot(self, request: gr.Request, fault: str = "") -> list[Any]:
        """Show what is to be compared."""
        visit = self._here(request, "vote")
        if visit is None:
            return [gr.skip()] * 6
        shown = self._votes.show(visit.annotator, visit.axis)
        progress = self._votes.progress(visit.annotator, visit.axis)
        nothing = markup.note(ALL_DONE if progress.total else NOTHING, "end")
        return [
            markup.head(visit.annotator, visit.axis, visit.task, progress),
            markup.ballot(shown) if shown else nothing,
            shown.ballot.key if shown else None,
            gr.update(visible=shown is not None),
            gr.update(interactive=progress.back),
            markup.note(fault, "fault") if fault else "",
        ]

    def choose(self, said: str, key: str | None, request: gr.Request) -> list[Any]:
        """Keep a choice and show the next ballot."""
        visit, fault = self._here(request, "vote"), ""
        if visit is not None:
            try:
                self._votes.choose(visit.annotator, visit.axis, key, said)
            except UserError as error:
                fault = str(error)
        return self.ballot(request, fault)

    def back(self, request: gr.Request) -> list[Any]:
        """Show the ballot before this one."""
        if visit := self._here(request, "vote"):
            self._votes.back(visit.annotator, visit.axis)
        return self.ballot(request)

    def talk(self, request: gr.Request) -> Iterator[list[Any]]:
        """Show a conversation while it grows."""
        visit = self._here(request, "chat")
        if visit is None:
            yield [gr.skip()] * 6
            return
        try:
            talk = self._talks.current(visit.annotator, visit.axis)
            self._talks.follow(talk)
            while True:
                talk, growing = self._talks.seen(talk)
                yield self._talk(visit, talk, growing)
                if growing is None:
                    return
                self._talks.wait(talk, 0.2)
        except UserError as error:
            yield self._failed(visit, str(error))

    def say(self, text: str, request: gr.Request) -> Iterator[list[Any]]:
        """Say something, and show the replies while they grow."""
        visit = self._here(request, "chat")
        try:
            if visit is not None:
                self._talks.say(self._talks.current(visit.annotator, visit.axis), text)
        except UserError as error:
            assert visit is not None
            yield self._failed(visit, str(error), text)
            return
        yield from self.talk(request)

    def prefer(self, said: str, request: gr.Request) -> Iterator[list[Any]]:
        """Keep a choice between two replies; the conversation goes on with one of them."""
        visit = self._here(request, "chat")
        try:
            if visit is not None:
                self._talks.choose(self._talks.current(visit.annotator, visit.axis), said)
        except UserError as error:
            assert visit is not None
            yield self._failed(visit, str(error))
            return
        yield from self.talk(request)

    def another(self, request: gr.Request) -> Iterator[list[Any]]:
        """Begin a new conversation."""
        if visit := self._here(request, "chat"):
            self._talks.end(self._talks.current(visit.annotator, visit.axis))
        yield from self.talk(request)

    def _here(self, request: gr.Request, task: str) -> Visit | None:
        try:
            visit = self.visit(request)
        except UserError:
            return None
        return visit if visit is not None and visit.task == task else None

    def _talk(self, visit: Visit, talk: Talk, growing: list[str] | None) -> list[Any]:
        due = talk.last is not None
        # What somebody has begun to type stays; what they have said is taken out of the box.
        box = gr.update(visible=False, value="") if due else gr.update(visible=True)
        return [
            markup.head(visit.annotator, visit.axis, visit.task),
            markup.conversation(talk, growing),
            gr.update(visible=due and growing is None),
            box,
            gr.update(visible=not due),
            "",
        ]

    def _failed(self, visit: Visit, fault: str, text: str | None = None) -> list[Any]:
        """Show a conversation as it is, with what went wrong; what was written stays."""
        try:
            talk, growing = self._talks.seen(self._talks.current(visit.annotator, visit.axis))
        except UserError:
            return [gr.skip()] * 5 + [markup.note(fault, "fault")]
        shown = self._talk(visit, talk, growing)
        if text is not None:
            shown[3] = gr.update(visible=talk.last is None, value=text)
        return [*shown[:5], markup.note(fault, "fault")]


def build(page: Page) -> gr.Blocks:
    """Lay the page out and say what leads to what."""
    with gr.Blocks(title="Arena", analytics_enabled=False, fill_width=True) as blocks:
        head = gr.HTML(elem_classes="arena")
        door, entry = _door()
        with gr.Column(visible=False, elem_id="vote") as vote:
            voted = _vote(page, head)
        with gr.Column(visible=False, elem_id="chat") as chat:
            talked = _chat(page, head)
        with gr.Row(visible=False, elem_id="tasks") as leave:
            gr.Button("Another task or name", size="sm", elem_id="leave").click(
                None, None, None, js=LEAVING, api_visibility="private"
            )
        blocks.load(page.enter, None, [door, vote, chat, leave, *entry], **QUIET).then(
            page.ballot, None, voted, **QUIET
        ).then(page.talk, None, talked, **QUIET)
    return blocks


def _door() -> tuple[gr.Column, list[Any]]:
    """Ask who somebody is and what they want to do."""
    with gr.Column(elem_id="door") as door:
        gr.HTML(f"<header><h1>Arena</h1>{markup.note(WELCOME)}</header>", elem_classes="arena")
        fault = gr.HTML(elem_classes="arena")
        name = gr.Textbox(label="Your name", max_lines=1, elem_id="name")
        tasks = [(told, key) for key, told in TASKS.items()]
        task = gr.Radio(tasks, value="vote", label="What would you like to do?", elem_id="task")
        axes = [(told.short, key) for key, told in QUESTIONS.items()]
        axis = gr.Radio(axes, value="harmlessness", label="Which question?", elem_id="axis")
        begin = gr.Button("Begin", variant="primary", elem_id="begin")
        for event in (begin.click, name.submit):
            event(None, [name, task, axis], None, js=GOING, api_visibility="private")
    return door, [fault, name]


def _vote(page: Page, head: gr.HTML) -> list[Any]:
    """Lay out a ballot; return what a new one changes."""
    ballot, key = gr.HTML(elem_classes="arena", elem_id="ballot"), gr.State(None)
    with gr.Row(elem_id="choose") as row:
        left = gr.Button("Reply 1", variant="primary", elem_id="vote-left")
        tie = gr.Button("Equal", elem_id="vote-tie")
        right = gr.Button("Reply 2", variant="primary", elem_id="vote-right")
    fault = gr.HTML(elem_classes="arena", elem_id="vote-fault")
    with gr.Row(elem_id="aside"):
        back = gr.Button("Back", size="sm", elem_id="vote-back", interactive=False)
        gr.HTML(markup.note(KEYS), elem_classes="arena keys")
    changed = [head, ballot, key, row, back, fault]
    for button, said in ((left, "left"), (tie, "tie"), (right, "right")):

        def choose(key: str | None, request: gr.Request, said: str = said) -> list[Any]:
            return page.choose(said, key, request)

        button.click(choose, key, changed, **QUIET).then(None, None, None, js=TO_TOP)
    back.click(page.back, None, changed, **QUIET).then(None, None, None, js=TO_TOP)
    return changed


def _chat(page: Page, head: gr.HTML) -> list[Any]:
    """Lay out a conversation; return what changes in it."""
    log = gr.HTML(elem_classes="arena", elem_id="log")
    with gr.Row(visible=False, elem_id="answer") as row:
        left = gr.Button("Reply 1 goes on", variant="primary", elem_id="chat-left")
        tie = gr.Button("Equal", elem_id="chat-tie")
        right = gr.Button("Reply 2 goes on", variant="primary", elem_id="chat-right")
    fault = gr.HTML(elem_classes="arena", elem_id="chat-fault")
    box = gr.Textbox(show_label=False, placeholder="Say something", lines=1, max_lines=8,
                     elem_id="box", submit_btn=True)  # fmt: skip
    another = gr.Button("New conversation, with others", size="sm", elem_id="chat-another")
    changed = [head, log, row, box, another, fault]
    for button, said in ((left, "left"), (tie, "tie"), (right, "right")):

        def prefer(request: gr.Request, said: str = said) -> Iterator[list[Any]]:
            yield from page.prefer(said, request)

        button.click(prefer, None, changed, **QUIET).then(None, None, None, js=WRITING)
    box.submit(page.say, box, changed, **QUIET).then(None, None, None, js=WRITING)
    another.click(page.another, None, changed, **QUIET).then(None, None, None, js=WRITING)
    return changed
