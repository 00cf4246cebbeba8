"""The page's HTML: hostile text is text, and nothing tells whose a reply is."""

import re
from html.parser import HTMLParser

from arena.made import HOSTILE, NAMES, Says, made_run, replies_of

from cai.arena import markup
from cai.arena.ballots import ballots_of
from cai.arena.conversations import Exchange
from cai.arena.talk import TalkDesk, pairs_of
from cai.arena.vote import Progress, VoteDesk
from cai.terminal import readable

OURS = {"article", "div", "section", "h2", "span", "header", "p", "h1", "i"}


class Seen(HTMLParser):
    """Collect elements, attributes and what is read."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.text = set(), set(), ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.text += data


def inert(page):
    seen = Seen(page)
    assert seen.tags <= OURS
    assert seen.attributes <= {"class", "data-key", "style", "role", "aria-label"}
    # Nothing that gradio's templates (JavaScript's and Handlebars') would read.
    assert not re.search(r"[{}$`]", page)
    return seen


def test_hostile_text_is_shown_and_does_nothing():
    seen = inert(markup.inert(HOSTILE))
    assert seen.tags == set()
    assert seen.text == readable(HOSTILE)
    assert "\x1b" not in seen.text
    assert "\u202e" not in seen.text


def test_a_ballot_is_blind_and_inert(tmp_path):
    rows = [r for n, who in enumerate(NAMES) for r in replies_of(who, 1, said=f"{n} {{name}} ")]
    rows = [r.__class__(**{**vars(r), "response": r.response + HOSTILE}) for r in rows]
    run = made_run(tmp_path, rows=rows)
    shown = VoteDesk([run], {"harmlessness": ballots_of([run], "harmlessness")}).show(
        "ann", "harmlessness"
    )
    page = markup.ballot(shown)
    seen = inert(page)
    assert seen.text.count(readable(HOSTILE)) == 2
    assert not any(name in page for name in (*NAMES, "m-", "evaluate-1"))


def test_a_conversation_is_blind_and_inert(tmp_path):
    run = made_run(tmp_path)
    desk = TalkDesk([run], pairs_of(run, NAMES), lambda: Says(text=HOSTILE))
    talk = desk.current("ann", "helpfulness")
    done = Exchange(HOSTILE, talk.pair, (HOSTILE, HOSTILE), "left")
    for last, growing in ((Exchange("More", talk.pair), [HOSTILE, ""]),
                          (Exchange("More", talk.pair, (HOSTILE, HOSTILE)), None)):  # fmt: skip
        now = talk.__class__(**{**vars(talk), "exchanges": [done, last]})
        page = markup.conversation(now, growing)
        inert(page)
        assert not any(name in page for name in (*NAMES, "evaluate-1"))


def test_the_head_says_who_is_here_and_how_far():
    page = markup.head("<b>Ann</b>", "harmlessness", "vote", Progress(3, 12, True))
    seen = inert(page)
    assert "<b>Ann</b>" in seen.text
    assert "3 of 12" in seen.text
    assert "width:25.0%" in page
    assert "not evasive" in seen.text
    assert "0 of 0" in markup.head("Ann", "helpfulness", "vote", Progress(0, 0, False))
