"""Servers as they are: each kind is asked as it wants to be, and read rightly."""

import logging
import math

import pytest
from chat_server import ChatServer, completion, endpoint_config, refusal

from cai.dialogue import human
from cai.errors import UserError
from cai.labelling import endpoint as module
from cai.labelling.choice_reading import first_option_probability
from cai.labelling.endpoint import Endpoint
from cai.labelling.remote import ChoiceReader
from cai.labelling.reply import parse_reply
from cai.labelling.server_profile import ServerProfile, give_way

TALK = (human("Which?\nOptions:\n (A) [[[x]]]\n (B) [[[y]]]\n\nAnswer with (A) or (B) only."),)
A, B = math.log(0.6), math.log(0.2)
SURE = 0.75  # .6 / (.6 + .2)
LETTER = {"A": A, "B": B, "I": -9.0}
ANSWER = [("(", {"(": 0.0, "I": -99.0}), ("A", LETTER), (")", {")": 0.0, ".": -99.0})]
THOUGHT = [("<think>", {"<think>": 0.0, "(": -99.0}), ("So (B", {"So (B": -0.1, "A": -3.0})]
ENDED = [*THOUGHT, ("</think>", {"</think>": 0.0, "B": -9.0}), ("\n\n", {"\n\n": 0.0, " ": -9.0})]
EMPTY = [
    (token, {token: 0.0, "B": -9.0}) for token in ("<think>", "\n\n", "</think>", "\n\n")
]  # what a template writes that keeps a model from thinking


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "FIRST_WAIT", 0.01)


@pytest.fixture
def reader(tmp_path, caplog):
    caplog.set_level(logging.INFO)

    def make(server, **changes):
        settings = endpoint_config(server.url, **changes)
        return ChoiceReader(Endpoint(settings, tmp_path / "cache"), settings.votes, 0)

    return make


def exactly(got, text="(A)", tokens=ANSWER, **more):
    """Answer (A), with log-probabilities if they are wanted."""
    return completion(text, tokens if got.body.get("logprobs") else None, **more)


def limit(got):
    return got.body.get("max_tokens", got.body.get("max_completion_tokens"))


def well_read(found):
    """Check one question whose answer has the known probability."""
    [answer] = found.read([TALK])
    assert answer.probabilities == [pytest.approx(SURE)]


LISTS = {
    "Invalid value for 'top_logprobs': must be less than or equal to 5.": (5, 1),
    "Requested sample logprobs of 20, which is greater than max allowed: 5": (5, 1),
    "Input should be between 0 and 8 (logprobs)": (8, 1),
    "top_logprobs is too large": (5, 1),
    "top_logprobs is too large for judge-4-mini": (5, 1),
}


@pytest.mark.parametrize("words", LISTS)
def test_as_many_rivals_are_asked_for_as_the_server_lists(words, reader, caplog):
    allowed, refused = LISTS[words]

    def answer(got, n):
        return refusal(words) if got.body["top_logprobs"] > allowed else exactly(got)

    with ChatServer(answer) as server:
        found = reader(server)
        assert found.exact
        assert len(server.requests) == 1 + refused
        well_read(found)
    assert server.requests[-1].body["top_logprobs"] == allowed
    assert f"asked for {allowed} tokens per place instead of 20" in caplog.text


@pytest.mark.parametrize(
    "words, status",
    [
        ("Unexpected fields: logprobs, top_logprobs", 422),
        ("Logprobs is not enabled for models/judge-2.5-pro", 400),
        ("You are not allowed to request logprobs from this model.", 403),
        ("logprobs: Extra inputs are not permitted", 400),
        ("bad request", 400),
        ("not implemented", 501),
    ],
)
def test_a_server_without_logprobs_is_told_with_what_votes_cost(words, status, reader, caplog):
    def answer(got, n):
        return refusal(words, status) if "logprobs" in got.body else completion("(A)")

    with ChatServer(answer) as server:
        found = reader(server, votes=25, per_second=50.0)
        assert not found.exact
        assert len(server.requests) == 2
        assert found.read([TALK])[0].probabilities == [1.0]
    assert "shares of 25 sampled votes, which takes 25 requests per question" in caplog.text
    assert "0.5 s at feedback.endpoint.per_second=50" in caplog.text
    assert "standard error of up to 0.10" in caplog.text


FIXED = ("top_p", "seed", "chat_template_kwargs", "thinking", "enable_thinking")


class OpenAIReasoner:
    """Refuses nearly all parameters, one by one, and thinks where nobody sees it."""

    def __init__(self, off=None):
        self.off, self.drawn = off, 0

    def __call__(self, got, n):
        body = got.body
        if "max_tokens" in body:
            return refusal(
                "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
                "'max_completion_tokens' instead."
            )
        if body.get("temperature", 1) != 1:
            return refusal(
                "Unsupported value: 'temperature' does not support 0.0 with this model. Only the "
                "default (1) value is supported."
            )
        if "logprobs" in body:
            return refusal("You are not allowed to request logprobs from this model.", 403)
        if named := [name for name in FIXED if name in body]:
            return refusal(f"Unsupported parameter: '{named[0]}' is not supported with this model.")
        return self.think(body, n)

    def think(self, body, n):
        effort = body.get("reasoning_effort", "high")
        if effort not in {"high", self.off}:
            return refusal(f"Unsupported value: 'reasoning_effort' does not support '{effort}'.")
        if effort == "high" and body["max_completion_tokens"] < 500:
            reply = completion("", finish="length")
            details = {"reasoning_tokens": body["max_completion_tokens"]}
            reply["usage"]["completion_tokens_details"] = details
            return reply
        if "random number" in body["messages"][0]["content"]:
            return completion(str(n))
        self.drawn += 1
        return completion("(B)" if self.drawn % 4 == 0 else "(A)")


@pytest.mark.parametrize("off", [None, "none", "minimal"])
def test_openais_reasoning_models_are_asked_as_they_want(off, reader, tmp_path):
    from cai.labelling.handshake import check_sampling

    with ChatServer(OpenAIReasoner(off)) as server:
        found = reader(server)
        check_sampling(found.endpoint)
        before = len(server.requests)
        server.answer.drawn = 0
        [answer] = found.read([TALK])
        # No seed is sent, and yet 16 votes are 16 requests, kept one by one.
        assert len(server.requests) - before == 16
        assert answer.probabilities == [0.75]
        assert found.read([TALK]) == [answer]
        assert len(server.requests) - before == 16
    body = server.requests[-1].body
    assert body["max_completion_tokens"] == (12 if off else 12 + 1024)
    assert body.get("reasoning_effort") == off
    assert not {"temperature", "top_p", "seed", "logprobs", "max_tokens"} & set(body)


def test_a_reply_that_openai_refuses_because_it_was_cut_gets_room(reader):
    def answer(got, n):
        if limit(got) < 100:
            return refusal("Could not finish the message because max_tokens or model output limit "
                           "was reached. Please try again with higher max_tokens.")  # fmt: skip
        return exactly(got)

    with ChatServer(answer) as server:
        found = reader(server)
        well_read(found)
    assert limit(server.requests[-1]) == 12 + 1024


def thinks(got, switched_off, needs, shown):
    """Think, unless it is switched off, as long as there is room."""
    if switched_off:
        return exactly(got, tokens=[*EMPTY, *ANSWER], **({"reasoning_content": ""}))
    if limit(got) < needs:
        return exactly(got, *shown.cut, finish="length", **shown.cut_apart)
    return exactly(got, *shown.whole, **shown.whole_apart)


class Apart:
    """Thoughts are a field of their own, but log-probabilities count them."""

    cut, cut_apart = (None, THOUGHT), {"reasoning_content": "So (B"}
    whole, whole_apart = ("(A)", [*ENDED, *ANSWER]), {"reasoning_content": "So (B"}


class Named:
    """The same by another name, and log-probabilities do not count them."""

    cut, cut_apart = (None, []), {"reasoning": "So (B"}
    whole, whole_apart = ("(A)", ANSWER), {"reasoning": "So (B"}


class Inline:
    """Thoughts stand before the answer."""

    cut, cut_apart = ("<think>So (B", THOUGHT), {}
    whole, whole_apart = ("<think>So (B</think>\n\n(A)", [*ENDED, *ANSWER]), {}


class Begun:
    """The prompt has opened the thoughts."""

    cut, cut_apart = ("So (B", THOUGHT[1:]), {}
    whole, whole_apart = ("So (B</think>\n\n(A)", [*ENDED[1:], *ANSWER]), {}


class Parts:
    """Thoughts are a part of the content."""

    cut, cut_apart = ([{"type": "thinking", "thinking": "So (B"}], THOUGHT), {}
    whole, whole_apart = ([*cut[0], {"type": "text", "text": "(A)"}], [*ENDED, *ANSWER]), {}


SHOWN = [Apart, Named, Inline, Begun, Parts]
OFF = [
    ("chat_template_kwargs", {"enable_thinking": False, "thinking": False}),
    ("reasoning_effort", "none"),
    ("reasoning_effort", "minimal"),
    ("thinking", {"type": "disabled"}),
    ("enable_thinking", False),
]


@pytest.mark.parametrize("shown", SHOWN)
@pytest.mark.parametrize("name, value", OFF)
def test_thoughts_are_switched_off(name, value, shown, reader, caplog):
    with ChatServer(lambda got, n: thinks(got, got.body.get(name) == value, 100, shown)) as server:
        found = reader(server)
        assert found.exact
        well_read(found)
    assert limit(server.requests[-1]) == 12
    assert "is kept from it by" in caplog.text


@pytest.mark.parametrize("shown", SHOWN)
@pytest.mark.parametrize("needs, room", [(800, 1024), (3000, 4096)])
def test_thoughts_that_cannot_be_switched_off_get_room(needs, room, shown, reader, caplog):
    def answer(got, n):
        extra = {"chat_template_kwargs", "reasoning_effort", "thinking", "enable_thinking"}
        if named := extra & set(got.body):
            return refusal(f"Unrecognized request argument supplied: {min(named)}")
        return thinks(got, False, needs, shown)

    with ChatServer(answer) as server:
        found = reader(server)
        assert found.exact
        well_read(found)
    assert limit(server.requests[-1]) == 12 + room
    assert f"every reply may cost {room} tokens more" in caplog.text


@pytest.mark.parametrize("shown", [Apart, Named, Inline, Parts])
def test_thoughts_without_end_are_an_error_after_a_few_questions(shown, reader):
    with (
        ChatServer(lambda got, n: thinks(got, False, 10**6, shown)) as server,
        pytest.raises(UserError, match="thinks and, with 4096 tokens for that, does not answer"),
    ):
        reader(server)
    assert len(server.requests) == 1 + 5 + 2


def test_thoughts_that_come_to_no_answer_are_an_error(reader):
    def answer(got, n):
        room = limit(got) > 100
        return completion(*(("So</think>\n\nNeither.",) if room else ("So", None, "length")))

    with ChatServer(answer) as server, pytest.raises(UserError, match="does not answer"):
        reader(server)


def test_a_model_that_answers_in_words_of_its_own_is_asked_once(reader, caplog):
    tokens = [("The apple.", {"The apple.": -0.1, "(A)": -3.0})]
    with ChatServer(lambda got, n: exactly(got, "The apple.", tokens)) as server:
        reader(server)
    assert len(server.requests) == 1
    assert "does not answer the first choice: 'The apple.'" in caplog.text


def test_rivals_of_blanks_before_the_answer_count():
    # A: .5 * .6; B: .25 at once, and .5 * .2 after the blank.
    blank = ("\n", {"\n": math.log(0.5), "(B": math.log(0.25)})
    letter = ("(A", {"(A": A, "(B": B})
    reply = parse_reply(completion("(A", [*THOUGHT, blank, letter], reasoning_content="So (B"))
    assert [place.taken.text for place in reply.places] == ["\n", "(A"]
    assert first_option_probability(reply._replace(text="(A)")) == pytest.approx(0.3 / 0.65)


def test_tokens_that_do_not_spell_the_answer_are_not_read_after_thoughts():
    tokens = [("(B)", {"(B)": -0.1, "(A)": -3.0})]
    assert parse_reply(completion("(A)", tokens, reasoning_content="Hm")).places is None
    assert parse_reply(completion("(A)", tokens)).places is not None


def test_a_model_that_rambles_is_not_given_room_to_think(reader, caplog):
    def answer(got, n):
        return completion("The fruit among these two is, of course,", finish="length")

    with ChatServer(answer) as server:
        found = reader(server)
        found.read([TALK])
    assert limit(server.requests[-1]) == 12
    assert found.endpoint.profile == ServerProfile()
    assert "does not answer the first choice: 'The fruit" in caplog.text


def test_a_clear_server_is_asked_one_question(reader, caplog):
    with ChatServer(lambda got, n: exactly(got)) as server:
        well_read(reader(server))
    assert len(server.requests) == 2
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


def older(got):
    """Give log-probabilities in the form of text completions; some rivals are not worth a word."""
    reply = completion("(A)")
    reply["choices"][0]["logprobs"] = {
        "tokens": [token for token, _ in ANSWER],
        "token_logprobs": [rivals[token] for token, rivals in ANSWER],
        "top_logprobs": [{"(": 0.0}, LETTER, None],
    }
    return reply


def nulls(got):
    """Write minus infinity as llama.cpp does."""
    return exactly(got, tokens=[(t, {**rivals, "?": None}) for t, rivals in ANSWER])


def ended(got):
    """Count the token that ends the turn, which spells an option's letter."""
    end = "<|END_OF_A|>"
    return exactly(got, tokens=[*ANSWER, (end, {end: 0.0, "x": -9.0})])


READ = {
    "empty thoughts in the text": lambda got: exactly(
        got, "<think>\n\n</think>\n\n(A)", [*EMPTY, *ANSWER]
    ),
    "empty thoughts taken out": lambda got: exactly(
        got, "(A)", [*EMPTY, *ANSWER], reasoning_content=""
    ),
    "the older form": older,
    "parts": lambda got: exactly(got, [{"type": "text", "text": "(A"}, ")"]),
    "null for minus infinity": nulls,
    "a last token": ended,
    "blanks first": lambda got: exactly(got, "\n(A)", [("\n", {"\n": 0.0, "x": -9.0}), *ANSWER]),
    "blanks as SentencePiece has them": lambda got: exactly(
        got, tokens=[("\u2581(", {"\u2581(": 0.0, "x": -99.0}), *ANSWER[1:]]
    ),
    "blanks as byte-level tokenizers have them": lambda got: exactly(
        got, tokens=[("\u010a", {"\u010a": 0.0, "\u0120x": -99.0}), *ANSWER]
    ),
}


@pytest.mark.parametrize("kind", READ)
def test_replies_of_all_forms_are_read_alike_also_from_the_cache(kind, reader):
    with ChatServer(lambda got, n: READ[kind](got)) as server:
        found = reader(server)
        assert found.exact
        well_read(found)
        first = found.read([TALK])
        asked = len(server.requests)
        assert reader(server).read([TALK]) == first
        assert len(server.requests) == asked


def test_nothing_is_conceded_twice_or_without_being_asked():
    profile = ServerProfile(limit="max_completion_tokens", rivals=0)
    words = "max_tokens, logprobs, top_logprobs and seed are not supported"
    assert give_way(profile, words, {"max_completion_tokens", "temperature"}) is None
    given = give_way(profile, words, {"max_completion_tokens", "seed"})
    assert given.profile.without == {"seed"}
    assert give_way(given.profile, words, given.profile.fit({"seed": 1})) is None


def test_a_profile_that_knows_nothing_changes_nothing():
    options = {"max_tokens": 3, "temperature": 0.0, "logprobs": True, "top_logprobs": 20}
    assert ServerProfile().fit(options) == options
