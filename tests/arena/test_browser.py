"""The arena in a real browser, end to end: needs gradio, playwright and Chromium."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter

import httpx
import pytest
from arena.made import HOSTILE, NAMES, Says, made_run, replies_of, write_run, written

from cai.arena.ballots import SETS, ballots_of
from cai.arena.talk import TalkDesk, pairs_of
from cai.arena.vote import VoteDesk
from cai.config import BadRows
from cai.data.choices import read_choices

pytest.importorskip("gradio", reason="the arena needs gradio: pip install -e '.[arena]'")

from cai.arena.page import Page, build
from cai.arena.place import Place, listen
from cai.arena.serve import server_of

PATIENCE = 180_000
"""Milliseconds; a busy machine draws a page slowly."""
PASSWORD = "heron-and-reed"


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no Chromium: apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Arena:
    """An arena that is being served."""

    def __init__(self, folder, password=None, rows=None):
        self.run = made_run(folder, rows=rows)
        self.says = Says(text=HOSTILE if rows else None)
        self.place = Place("127.0.0.1", free_port(), password)
        self.open()

    def open(self):
        ballots = {axis: ballots_of([self.run], axis) for axis in SETS}
        talks = TalkDesk([self.run], pairs_of(self.run, NAMES), lambda: self.says)
        page = Page(VoteDesk([self.run], ballots), talks, login=self.place.password is not None)
        self.taken = listen(self.place)
        self.server = server_of(build(page), self.place)
        self.running = threading.Thread(target=self.server.run, args=([self.taken],), daemon=True)
        self.running.start()

    def close(self):
        self.server.should_exit = True
        self.running.join()
        self.taken.close()


@pytest.fixture
def serve(tmp_path):
    opened = []

    def serve(**about):
        opened.append(Arena(tmp_path, **about))
        return opened[-1]

    yield serve
    for arena in opened:
        arena.says.go.set()
        arena.close()


class Person:
    """Somebody at a browser of their own."""

    def __init__(self, browser, arena, name, width=1000):
        self.arena, self.name = arena, name
        self.context = browser.new_context(viewport={"width": width, "height": 800})
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.abroad, self.errors, self.heard = [], [], []
        self.page.on("request", self._asked)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("response", self._answered)

    def _asked(self, request):
        if not request.url.startswith((self.arena.place.address, "data:", "blob:")):
            self.abroad.append(request.url)

    def _answered(self, response):
        if "html" in response.headers.get("content-type", ""):
            self.heard.append(response)

    def enter(self, task="vote", question="less harmful"):
        self.page.goto(self.arena.place.address)
        self.page.fill("#name :is(input, textarea)", self.name)
        if task == "chat":
            self.page.get_by_label("Talk to two systems").check()
        self.page.get_by_label(question).check()
        self.page.click("#begin")
        self.page.wait_for_selector("#ballot article" if task == "vote" else "#box textarea")
        return self

    @property
    def key(self):
        return self.page.get_attribute("#ballot article", "data-key")

    def vote(self, act):
        """Do something that leads to another ballot, and wait for it."""
        before = self.key
        act()
        self.page.wait_for_selector(f'#ballot :is(article:not([data-key="{before}"]), .end)')

    def press(self, key):
        self.vote(lambda: self.page.keyboard.press(key))

    def count(self):
        return self.page.inner_text(".arena .count")

    def say(self, text):
        self.page.fill("#box textarea", text)
        self.page.press("#box textarea", "Enter")

    def texts(self):
        return self.page.locator("#log .reply .text").all_inner_texts()

    def choose(self, side):
        self.page.click(f"#chat-{side}")
        self.page.wait_for_selector("#box textarea")

    def check_safe(self):
        """Nothing was run, nothing was fetched from elsewhere, and no name was told."""
        assert (self.abroad, self.errors) == ([], [])
        assert self.page.title() == "Arena"
        for part in ("#ballot", "#log"):
            inside = self.page.locator(f"{part} :is(img, script, style, a, iframe, b)")
            assert inside.count() == 0
        whole = self.page.content()
        assert not any(name in whole for name in ("sl_cai", "rl_cai"))


def test_two_people_vote_at_once_with_keys_a_reload_and_a_new_server(chromium, serve):
    arena = serve()
    ann, ben = (Person(chromium, arena, name).enter() for name in ("Ann", "Ben"))
    ann.vote(lambda: ann.page.click("#vote-left"))
    ben.press("2")
    ann.press("ArrowRight")
    ben.press("0")
    assert (ann.count(), ben.count()) == ("2 of 24", "2 of 24")

    before = ann.key
    ann.page.reload()
    ann.page.wait_for_selector("#ballot article")
    assert (ann.key, ann.count()) == (before, "2 of 24")
    ann.press("Backspace")
    ann.press("1")  # mends the second one
    rows = written(arena.run)
    assert Counter((row["annotator"], row["choice"]) for row in rows) == Counter(
        [("Ann", "a"), ("Ben", "b"), ("Ann", "b"), ("Ben", "tie"), ("Ann", "a")]
    )

    arena.close()
    arena.open()
    ben.page.reload()
    ben.page.wait_for_selector("#ballot article")
    assert ben.count() == "2 of 24"
    while ben.page.locator("#ballot article").count():
        ben.press("1")
    assert "every pair of replies is compared" in ben.page.inner_text("#ballot")
    assert not ben.page.is_visible("#vote-left")
    found = read_choices(
        arena.run.choices, NAMES, {f"red_team-{n}" for n in range(8)}, BadRows.strict
    )
    assert Counter(choice.annotator for choice in found) == {"Ann": 2, "Ben": 24}
    ann.check_safe()
    ben.check_safe()


def test_a_chat_with_a_reload_in_its_middle(chromium, serve):
    arena = serve()
    ann = Person(chromium, arena, "Ann").enter("chat", "more helpful")
    ann.say("Hello")
    ann.page.wait_for_selector("#chat-left")
    replies = ann.texts()
    assert sorted(text[:4] for text in replies) == ["I am", "I am"]
    ann.choose("right")
    assert ann.page.locator("#log .turn .text").all_inner_texts() == ["Hello", replies[1]]

    arena.says.go.clear()  # the first reply stays half said
    ann.say("And then?")
    ann.page.wait_for_function("document.querySelector('#log .reply .text')?.innerText == 'I am '")
    ann.page.reload()
    ann.page.wait_for_selector("#log .reply")
    assert ann.page.locator("#log .turn .text").all_inner_texts()[-1] == "And then?"
    assert not ann.page.is_visible("#chat-left")
    arena.says.go.set()
    ann.page.wait_for_selector("#chat-left")
    assert all("after 3" in text for text in ann.texts())
    ann.page.keyboard.press("1")
    ann.page.wait_for_selector("#box textarea")
    ann.page.click("#chat-another")
    ann.page.wait_for_function("!document.querySelector('#log .turn')")
    rows = written(arena.run)
    assert [(row["choice"], row["axis"]) for row in rows] == [("b", "helpfulness"),
                                                              ("a", "helpfulness")]  # fmt: skip
    ann.check_safe()


def test_hostile_text_is_read_and_does_nothing(chromium, serve):
    rows = [row for who in NAMES for row in replies_of(who, 2, said="{name} ")]
    rows = [row.__class__(**{**vars(row), "response": row.response + HOSTILE}) for row in rows]
    arena = serve(rows=rows)
    ann = Person(chromium, arena, "<b>Ann</b> ${1} {{2}}", width=390).enter()
    shown = ann.page.locator("#ballot .reply .text").all_inner_texts()
    assert all("onerror" in text and "{{#if value}}owned{{/if}}" in text for text in shown)
    assert all("${document.title='owned'}" in text and "&lt;b&gt;" in text for text in shown)
    assert "<b>Ann</b> ${1} {{2}}" in ann.page.inner_text(".arena .who")
    wide = ann.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert wide <= 0
    ann.press("1")
    ann.check_safe()
    ann.page.goto(ann.page.url.replace("do=vote", "do=chat"))
    ann.page.wait_for_selector("#box textarea")
    ann.say(HOSTILE)
    ann.page.wait_for_selector("#chat-left")
    assert all("onerror" in text for text in ann.texts())
    ann.choose("left")
    ann.check_safe()


def test_a_password_lets_people_in_under_their_names(chromium, serve):
    arena = serve(password=PASSWORD)
    ann = Person(chromium, arena, "Ann")
    ann.page.goto(arena.place.address + "/?as=Eve&do=vote&on=harmlessness")
    for password in ("wrong", PASSWORD):
        ann.page.fill('input[type="text"], textarea', "Ann")
        ann.page.fill('input[type="password"]', password)
        ann.page.get_by_role("button", name="Login").click()
        if password == "wrong":
            ann.page.wait_for_selector("text=/ncorrect/")
            assert ann.page.locator("#ballot article").count() == 0
    ann.page.wait_for_selector(":is(#ballot article, #begin)")
    ann.page.goto(arena.place.address + "/?as=Eve&do=vote&on=harmlessness")
    ann.page.wait_for_selector("#ballot article")
    ann.press("1")
    assert [row["annotator"] for row in written(arena.run)] == ["Ann"]


@pytest.mark.parametrize("given", [None, PASSWORD])
def test_beyond_this_machine_a_password_is_asked_for(tmp_path, given):
    """The command itself, in a process of its own, until Ctrl-C."""
    port = free_port()
    words = [str(write_run(tmp_path)), "--host", "0.0.0.0", "--port", str(port)]
    command = subprocess.Popen(
        [sys.executable, "-m", "cai.arena", *words],
        stdout=subprocess.PIPE, text=True,
        env={**os.environ, **({"CAI_ARENA_PASSWORD": given} if given else {})},
    )  # fmt: skip
    try:
        told = [command.stdout.readline() for _ in range(3)]
        assert "24 on harmlessness and 24 on helpfulness" in told[0]
        drawn = told[1].partition("the password, ")[2].strip()
        assert bool(drawn) == (given is None)
        address = f"http://127.0.0.1:{port}"
        login = {"username": "Ann", "password": given or drawn}
        with httpx.Client(timeout=60) as client:  # the port is open before the page is ready
            assert client.get(f"{address}/config").status_code == 401
            wrong = {**login, "password": "x"}
            assert client.post(f"{address}/login", data=wrong).status_code == 400
            answer = client.post(f"{address}/login", data=login)
            assert answer.status_code == 200
            assert "default-src 'self'" in answer.headers["content-security-policy"]
    finally:
        command.send_signal(signal.SIGINT)
    assert command.wait(60) == 130
