"""Talking to two systems at once: what they hear, what is kept, what survives."""

import time
from collections import Counter

import pytest
from arena.made import NAMES, Says, made_run, written

from cai.arena.conversations import SILENCE
from cai.arena.talk import TalkDesk, pairs_of
from cai.config import BadRows
from cai.data.choices import read_choices
from cai.dialogue import assistant, human
from cai.errors import UserError

AXIS = "helpfulness"


def desk_of(run, says):
    return TalkDesk([run], pairs_of(run, NAMES), lambda: says)


def replied(desk, talk):
    """Wait for both replies."""
    for _ in range(500):
        now, growing = desk.seen(talk)
        if growing is None:
            return now
        desk.wait(talk, 0.1)
    raise AssertionError("no reply")


def exchange(desk, text, said, who="ann"):
    talk = desk.say(desk.current(who, AXIS), text)
    talk = replied(desk, talk)
    return desk.choose(talk, said)


def test_both_hear_the_same_and_the_chosen_reply_goes_on(tmp_path):
    run, says = made_run(tmp_path), Says()
    desk = desk_of(run, says)
    first = exchange(desk, "  Hello  ", "right").exchanges[0]
    talk = exchange(desk, "And then?", "tie")
    assert {who for who, _ in says.heard[:2]} == set(talk.pair)
    assert [heard for _, heard in says.heard[:2]] == [(human("Hello"),)] * 2
    went_on = (human("Hello"), assistant(first.replies[1]), human("And then?"))
    assert [heard for _, heard in says.heard[2:]] == [went_on] * 2
    assert first.replies[1] == f"I am {NAMES.index(first.systems[1])} after 1"
    assert talk.heard()[-1].text == talk.exchanges[1].replies[0]  # of equal ones that on the left


def test_choices_are_read_by_an_evaluation(tmp_path):
    run = made_run(tmp_path)
    desk = desk_of(run, Says())
    talk = exchange(desk, "Hello", "left")
    talk = exchange(desk, "More", "right")
    rows = written(run)
    assert [(row["a"], row["b"]) for row in rows] == [e.systems for e in talk.exchanges]
    assert [row["replies"]["a"] for row in rows] == [e.replies[0] for e in talk.exchanges]
    assert [len(row["messages"]) for row in rows] == [1, 3]
    found = read_choices(run.choices, NAMES, set(), BadRows.strict)
    assert [(c.prompt_id, c.sample, c.outcome, c.axis) for c in found] == [
        (talk.id, 0, 1.0, AXIS), (talk.id, 1, 0.0, AXIS)
    ]  # fmt: skip


def test_each_system_is_as_often_on_the_left(tmp_path):
    desk = desk_of(made_run(tmp_path), Says())
    for _ in range(4):
        talk = exchange(desk, "Hello", "left")
    assert Counter(e.systems[0] for e in talk.exchanges) == dict.fromkeys(talk.pair, 2)


def test_pairs_take_turns(tmp_path):
    desk = desk_of(made_run(tmp_path), Says())
    pairs = []
    for _ in range(6):
        talk = exchange(desk, "Hello", "left")
        pairs.append(talk.pair)
        desk.end(talk)
    assert Counter(pairs) == dict.fromkeys(pairs[:3], 2)
    assert desk.current("ben", AXIS).id != desk.current("ann", AXIS).id


def test_an_empty_conversation_is_not_ended(tmp_path):
    desk = desk_of(made_run(tmp_path), Says())
    talk = desk.current("ann", AXIS)
    desk.end(talk)
    assert desk.current("ann", AXIS) == talk


def test_a_closed_tab_loses_nothing(tmp_path):
    """Replies in the making are made to their end, and found when the person is back."""
    run, says = made_run(tmp_path), Says()
    says.go.clear()
    desk = desk_of(run, says)
    talk = desk.say(desk.current("ann", AXIS), "Hello")
    for _ in range(200):
        growing = desk.seen(talk)[1]
        if growing[0]:
            break
        time.sleep(0.01)
    assert growing == ["I am ", ""]
    with pytest.raises(UserError, match="choose one of the two replies first"):
        desk.say(talk, "Impatient")
    says.go.set()
    done = replied(desk, desk.current("ann", AXIS))
    assert done.exchanges[0].replies is not None
    assert desk_of(run, says).current("ann", AXIS) == done


def test_a_desk_that_was_closed_makes_the_replies_again(tmp_path):
    run, stuck = made_run(tmp_path), Says()
    stuck.go.clear()
    closed = desk_of(run, stuck)
    talk = closed.say(closed.current("ann", AXIS), "Hello")
    again = desk_of(run, Says())
    found = again.current("ann", AXIS)
    assert (found.id, found.exchanges[0].said, found.last.replies) == (talk.id, "Hello", None)
    again.follow(found)
    again.follow(found)  # one page more
    assert replied(again, found).last.replies == (
        f"I am {NAMES.index(found.last.systems[0])} after 1",
        f"I am {NAMES.index(found.last.systems[1])} after 1",
    )
    stuck.go.set()


class Endless(Says):
    """Speaks until it is broken off."""

    ended = False

    def reply(self, voice, conversation, seed):
        try:
            while True:
                yield "and"
                time.sleep(0.01)
        finally:
            self.ended = True


@pytest.mark.timeout(60)
def test_closing_breaks_off_what_is_being_said(tmp_path):
    """A thread at work when Python ends would abort the process."""
    run, says = made_run(tmp_path), Endless()
    desk = desk_of(run, says)
    talk = desk.say(desk.current("ann", AXIS), "Hello")
    while not desk.seen(talk)[1][0]:
        time.sleep(0.01)
    desk.close()
    assert says.ended
    found = desk_of(run, Says()).current("ann", AXIS)
    assert (found.id, found.last.replies) == (talk.id, None)


def test_a_conversation_that_is_too_long_is_said_and_taken_back(tmp_path):
    desk = desk_of(made_run(tmp_path), Says(most=1))
    talk = exchange(desk, "Hello", "left")
    talk = desk.say(talk, "More")
    with pytest.raises(UserError, match="too long"):
        replied(desk, talk)
    assert len(desk.current("ann", AXIS).exchanges) == 1
    desk.end(talk)
    assert desk.current("ann", AXIS).exchanges == []


def test_systems_that_fail_are_said(tmp_path):
    def load():
        raise RuntimeError("no memory")

    run = made_run(tmp_path)
    desk = TalkDesk([run], pairs_of(run, NAMES), load)
    talk = desk.say(desk.current("ann", AXIS), "Hello")
    with pytest.raises(UserError, match=r"can't reply: RuntimeError\('no memory'\)"):
        replied(desk, talk)


def test_silence_goes_on_as_dots(tmp_path):
    desk = desk_of(made_run(tmp_path), Says(text=" \n"))
    talk = exchange(desk, "Hello", "left")
    assert talk.heard()[-1] == assistant(SILENCE)
    assert len(exchange(desk, "More", "left").exchanges) == 2


@pytest.mark.parametrize("text", ["", " \n ", "x" * 4001])
def test_nothing_and_too_much_are_refused(tmp_path, text):
    desk = desk_of(made_run(tmp_path), Says())
    with pytest.raises(UserError, match="write 1 to 4000 letters"):
        desk.say(desk.current("ann", AXIS), text)


def test_half_a_letter_does_no_harm(tmp_path):
    desk = desk_of(made_run(tmp_path), Says())
    assert exchange(desk, "a \ud800 b", "left").exchanges[0].said == "a ? b"


def test_nobody_to_talk_to(tmp_path):
    run = made_run(tmp_path)
    with pytest.raises(UserError, match="no two systems here"):
        TalkDesk([run], [], Says).current("ann", AXIS)


def test_a_file_that_is_no_conversation_is_named(tmp_path):
    run = made_run(tmp_path)
    run.talks.mkdir(parents=True)
    (run.talks / "x.json").write_text("{}")
    with pytest.raises(UserError, match=r"x\.json is no conversation of the arena"):
        desk_of(run, Says())
