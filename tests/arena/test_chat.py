"""Real adapters that speak, and the terminal in which one talks to them."""

import io

import pytest
from arena.made import NAMES, Says, made_run, write_run, written
from tiny import randomise, tiny_config, tiny_hardware

from cai import chat
from cai.arena.runs import open_run
from cai.arena.talk import TalkDesk, Voice, pairs_of
from cai.arena.voices import Manner, load_voices
from cai.arena.weights import speakers, weights_of
from cai.dialogue import assistant, human
from cai.errors import UserError
from cai.files import write_json
from cai.lm.generate import Sampling
from cai.lm.heads import save_model
from cai.lm.load import load_model
from cai.pipeline.plan import to_plain
from cai.sampling.replies import sample_replies

TALK = (human("Hello?"), assistant("Yes."), human("And?"))
TOKENS = 12


def add_weights(folder, config=None):
    """Lay the systems' adapters beside an evaluation, and its record into it; one is the base."""
    config = config or tiny_config()
    model = load_model(config, tiny_hardware())
    for n, name in enumerate(NAMES):
        place = folder.parent / f"m-{name}" / "model"
        place.parent.mkdir()
        if n:
            model.add_adapter(f"made_{n}", n)
            randomise(model, f"made_{n}", seed=n, std=0.5)
            save_model(model, f"made_{n}", place)
    evaluate = {"reply_tokens": TOKENS, "temperature": 1.0}
    settings = {"model": to_plain(config), "evaluate": evaluate}
    write_json(folder / "artifact.json", {"recipe": {"settings": settings, "content": {}}})
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return open_run(add_weights(write_run(tmp_path_factory.mktemp("run"))))


@pytest.fixture(scope="module")
def voices(run):
    return load_voices([(run, name) for name in NAMES], Manner("cpu"))


# Voices


def test_a_system_says_what_an_evaluation_would_have_sampled(run, voices):
    model = load_model(tiny_config(), tiny_hardware())
    for name in NAMES[1:]:
        model.add_adapter(f"alone_{name}", 0, weights_of(run, name))
    said = set()
    for name in NAMES:
        adapter = None if name == "helpful" else f"alone_{name}"
        [reply] = sample_replies(model, adapter, [TALK], [7], Sampling(TOKENS, 1, 1.0))
        *growing, last = voices.reply(Voice(run.name, name), TALK, 7)
        assert last == reply.text
        assert len(growing) == len(reply.tokens)
        said.add(last)
    assert len(said) == 3


def test_a_reply_that_is_broken_off_leaves_the_others_as_they_were(run, voices):
    before = list(voices.reply(Voice(run.name, "sl_cai"), TALK, 7))
    growing = voices.reply(Voice(run.name, "rl_cai"), TALK, 7)
    next(growing)
    growing.close()
    assert list(voices.reply(Voice(run.name, "sl_cai"), TALK, 7)) == before


def test_a_conversation_longer_than_the_context_is_refused(voices):
    with pytest.raises(UserError, match="reached the length"):
        voices.check((human("word " * 3000),))
    voices.check(TALK)


def test_systems_that_are_not_there_are_said(tmp_path, run):
    assert speakers(run) == list(NAMES)
    with pytest.raises(UserError, match="no system 'gpt' in evaluate-1: choose among helpful, sl_"):
        weights_of(run, "gpt")
    gone = made_run(tmp_path)
    assert speakers(gone) == []
    with pytest.raises(UserError, match=r"the weights of sl_cai are not in .* any more"):
        weights_of(gone, "sl_cai")
    chosen = made_run(tmp_path / "b", models=("helpful", "sl_cai", "sl_cai-best-of-4"))
    with pytest.raises(UserError, match="rl_cai is not a model but a choice"):
        weights_of(chosen, "rl_cai")


def test_a_snapshot_is_found_by_its_step(tmp_path):
    run = made_run(tmp_path, models=("helpful", "sl_cai", "rl@20"))
    place = run.evaluation.path.parent / "m-rl" / "snapshots" / "000020"
    assert speakers(run) == []
    place.mkdir(parents=True)
    assert weights_of(run, "rl_cai") == place


def test_runs_on_different_bases_do_not_talk_at_once(tmp_path, run):
    other = add_weights(write_run(tmp_path, "evaluate-2"), tiny_config(temperature=0.5))
    wanted = [(run, "sl_cai"), (open_run(other), "sl_cai")]
    with pytest.raises(UserError, match="different base models"):
        load_voices(wanted, Manner("cpu"))


def test_an_evaluation_without_a_record_is_said(tmp_path):
    folder = add_weights(write_run(tmp_path))
    (folder / "artifact.json").unlink()
    with pytest.raises(UserError, match=r"artifact\.json can.t be read: make it again"):
        load_voices([(open_run(folder), "sl_cai")], Manner("cpu"))


# The terminal


def terminal(*lines):
    """Type these lines, then end the input."""
    left, out = list(lines), io.StringIO()

    def read(words):
        out.write(words)
        if not left:
            raise EOFError
        out.write(left[0] + "\n")
        return left.pop(0)

    return chat.Terminal(read, out)


def test_one_system_talks_over_several_turns(tmp_path):
    run, says, shown = made_run(tmp_path), Says(), terminal("Hello", "More", "/new", "Again")
    with pytest.raises(chat.Over):
        chat.talk(shown, says, run, ["rl_cai"], 0)
    heard = [conversation for _, conversation in says.heard]
    assert heard == [
        (human("Hello"),),
        (human("Hello"), assistant("I am 2 after 1"), human("More")),
        (human("Again"),),
    ]
    assert "rl_cai: I am 2 after 3\n" in shown.out.getvalue()


def test_of_two_systems_the_chosen_one_goes_on(tmp_path):
    run, says, shown = made_run(tmp_path), Says(), terminal("Hello", "what?", "2", "More", "1")
    with pytest.raises(chat.Over):
        chat.talk(shown, says, run, ["helpful", "rl_cai"], 0)
    assert [who for who, _ in says.heard] == ["helpful", "rl_cai"] * 2
    assert says.heard[-1][1] == (human("Hello"), assistant("I am 2 after 1"), human("More"))
    assert written(run) == []


def test_unnamed_systems_are_compared_and_the_choice_is_kept(tmp_path):
    run, shown = made_run(tmp_path), terminal("Hello", "2", "More", "0", "", "New", "1")
    desk = TalkDesk([run], pairs_of(run, NAMES), Says)
    with pytest.raises(chat.Over):
        chat.compare(shown, desk, "ann", "helpfulness")
    rows = written(run)
    assert [row["choice"] for row in rows] == ["b", "tie", "a"]
    assert rows[0]["prompt_id"] == rows[1]["prompt_id"] != rows[2]["prompt_id"]
    said = shown.out.getvalue()
    assert not any(name in said for name in NAMES[1:])  # "helpful" is in the question
    replies = [row["replies"][side] for row in rows for side in "ab"]
    assert all(said.count(reply) >= 1 for reply in replies)


def test_who_stops_before_choosing_is_asked_again(tmp_path):
    run = made_run(tmp_path)
    for lines in (["Hello"], ["1"]):
        desk = TalkDesk([run], pairs_of(run, NAMES), Says)
        with pytest.raises(chat.Over):
            chat.compare(terminal(*lines), desk, "ann", "helpfulness")
    assert [row["choice"] for row in written(run)] == ["a"]


def test_what_is_too_long_is_said_and_the_conversation_goes_on(tmp_path):
    run, shown = made_run(tmp_path), terminal("Hello", "1", "More", "/new", "Again", "1")
    desk = TalkDesk([run], pairs_of(run, NAMES), lambda: Says(most=1))
    with pytest.raises(chat.Over):
        chat.compare(shown, desk, "ann", "helpfulness")
    assert "This conversation is too long." in shown.out.getvalue()
    assert len(written(run)) == 2


def test_a_terminal_obeys_nothing(tmp_path):
    hostile = "\x1b]0;title\x07\x1b[2Jclear\x9b31m \u202eturned\r\x08 line\nbreak"
    run, shown = made_run(tmp_path), terminal("Hello")
    with pytest.raises(chat.Over):
        chat.talk(shown, Says(text=hostile), run, ["rl_cai"], 0)
    assert shown.out.getvalue().replace("\n", "").isprintable()
    assert "line\nbreak" in shown.out.getvalue()


def test_the_command_talks_to_real_adapters(run, capsys):
    shown = terminal("Hello", "Hello again", "/quit")
    words = [str(run.evaluation.path), "--system", "sl_cai", "--hardware", "cpu"]
    assert chat.main(words, shown) == 0
    assert shown.out.getvalue().count("sl_cai: ") == 2
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("named", [False, True])
def test_ctrl_c_says_what_becomes_of_the_talk(run, named, capsys):
    def read(words):
        raise KeyboardInterrupt

    words = [str(run.evaluation.path), "--hardware", "cpu", *(["--system", "sl_cai"] * named)]
    assert chat.main(words, chat.Terminal(read, io.StringIO())) == 130
    said = "of what named systems say nothing is kept" if named else "every choice is kept"
    assert f"Interrupted: {said}" in capsys.readouterr().err


def test_a_login_without_a_name_is_told_of_the_option(run, capsys, monkeypatch):
    def nobody():
        raise KeyError("getpwuid(): uid not found: 1000")

    monkeypatch.setattr("getpass.getuser", nobody)
    words = [str(run.evaluation.path), "--hardware", "cpu"]
    assert chat.main(words, terminal()) == 1
    assert capsys.readouterr().err == "this login has no name: give yours with --name\n"
    assert chat.main([*words, "--name", "Ann"], terminal()) == 0


BAD = {
    "no evaluation": (["nowhere"], 1, "'nowhere' holds no evaluation"),
    "no such system": (["RUN", "--system", "gpt"], 1, "there is no system 'gpt'"),
    "three systems": (["RUN", *["--system", "a", "--system", "b", "--system", "c"]], 2, "--system"),
    "twice the same": (["RUN", "--system", "a", "--system", "a"], 2, "different names"),
    "a temperature": (["RUN", "--temperature", "-1"], 2, "--temperature=-1.0 must be in [0, 5]"),
    "no tokens": (["RUN", "--tokens", "0"], 2, "--tokens=0 must be at least 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_mistake_on_the_command_line_is_one_sentence(run, name, capsys):
    words, status, said = BAD[name]
    words = [str(run.evaluation.path) if word == "RUN" else word for word in words]
    try:
        found = chat.main(words, terminal())
    except SystemExit as stopped:
        found = stopped.code
    told = capsys.readouterr().err
    assert found == status
    assert said in told
    assert "Traceback" not in told
    assert status == 2 or len(told.splitlines()) == 1
