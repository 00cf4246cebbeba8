"""Labels by a model behind a server agree with labels by the same model in this process."""

import math
import random
import threading

import pytest
from chat_server import ChatServer, completion, endpoint_config

from cai.config import (
    Average,
    ComparisonPrinciple,
    Dialect,
    FeedbackConfig,
    LabelConfig,
    LabelKind,
    Method,
    Principles,
    SamplingConfig,
    Start,
)
from cai.constitution.principles import Constitution
from cai.constitution.prompts import ANSWERS, CHAIN_ANSWERS, chain_answer
from cai.data.records import Comparison, Demonstration, Prompt
from cai.dialogue import assistant, from_messages, human
from cai.errors import UserError
from cai.labelling.answers import Asked, FeedbackModel, FewShots, Shown
from cai.labelling.chains import reasoned_question
from cai.labelling.choice_reading import first_option_probability, read_choice
from cai.labelling.methods import make_judge
from cai.labelling.reply import Place, ServerReply, Token
from cai.lm.score import option_logprobs

RULES = [
    ComparisonPrinciple(id=name, text=text)
    for name, text in {
        "harm": "Which reply does less harm?",
        "kind": "Which of these is kinder {and} braver?",
        "true": "Choose the reply that is true.",
    }.items()
]
SHOTS = [
    Demonstration(
        Prompt(f"d{n}", "red", (human(f"How do I break thing {n}?"),)),
        response=f"Hit it {n} times.",
        critique="",
        revision="I would rather not say.",
        reasoning="{first} helps with damage, {second} does not.",
    )
    for n in range(2)
]
PAIRS = [
    Comparison(
        Prompt("1", "red", (human("How do I lie?"),)), "Like this.", "I'd rather not.", 1, ""
    ),
    Comparison(
        Prompt("2", "red", (human("Hi"), assistant("Hello."), human("Teach me 50% of {it}"))),
        "No \N{SNOWMAN} way",
        "Of course:\n\n1. Begin",
        1,
        "",
    ),
    Comparison(Prompt("3", "red", (human("Why?"),)), "Because.", "A longer reply, (B).", 1, ""),
]
ONLY = "Answer with (A) or (B) only."


def settings(endpoint, chains=1, **changes):
    values = {
        "prompts": 1,
        "model": Start.base,
        "method": Method.choice,
        "principles": Principles.ensemble,
        "average": Average.probability,
        "swap": True,
        "few_shots": 0,
        "cot": False,
        "sampling": SamplingConfig(
            temperature=1.0, reply_tokens=8, chain_tokens=32, chains=chains, batch_size=4
        ),
        "label": LabelConfig(kind=LabelKind.soft, clamp=[0.4, 0.6], calibrate=False),
        "endpoint": endpoint,
    }
    return FeedbackConfig(**{**values, **changes})


@pytest.fixture
def judge(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("CAI_CACHE", str(tmp_path))
    monkeypatch.setattr("cai.labelling.endpoint.FIRST_WAIT", 0.01)

    def make(server=None, votes=16, **changes):
        endpoint = endpoint_config(server and server.url, votes=votes)
        constitution = Constitution([], RULES)
        return make_judge(
            settings(endpoint, **changes), constitution, Shown(SHOTS), FeedbackModel(tiny, None), 0
        )

    return make


def local_form(messages):
    """Undo by hand what a question goes through on its way to a server."""
    *before, last = from_messages(messages)
    cue = f"\n\n{ONLY} The answer is:"
    turns = [*before, last, assistant("(?)")]
    for n in range(0, len(turns), 2):
        assert turns[n].text.endswith(cue)
        turns[n] = human(turns[n].text.removesuffix(cue))
        turns[n + 1] = assistant(f"The answer is: {turns[n + 1].text}")
    return tuple(turns[:-1])


class LikeOpenAI:
    """Answers with one token, " (A)" or " (B)", and its log-probabilities by the tiny model."""

    def __init__(self, model):
        self.model, self.lock, self.chains = model, threading.Lock(), []

    def __call__(self, got, n):
        assert got.body["logprobs"] is True
        assert got.body["temperature"] == 0
        scores = self.scores(local_form(got.body["messages"]), "The answer is:", ANSWERS)
        # Both options and a rival, as shares of all that the model could say.
        rivals = {" (A)": scores[0] - 9, " (B)": scores[1] - 9, "I": -0.1}
        token = max(ANSWERS, key=rivals.get)
        return completion(token, [(token, rivals)])

    def scores(self, talk, opening, answers):
        chat = self.model.chat
        with self.lock, self.model.sampling(None) as network:
            ids = [chat.prompt(talk, opening)]
            found = option_logprobs(network, ids, chat.options(answers), 4096)[0].double()
        return (found - found.logsumexp(-1)).tolist()


@pytest.mark.parametrize("few_shots", [0, 2])
def test_remote_and_local_probabilities_agree(few_shots, judge, tiny):
    with ChatServer(LikeOpenAI(tiny)) as server:
        remote = judge(server, few_shots=few_shots).judge(PAIRS)
    local = judge(few_shots=few_shots).judge(PAIRS)
    values = []
    for there, here in zip(remote, local, strict=True):
        assert there.probability == pytest.approx(here.probability, abs=1e-4)
        assert there.unreadable == 0
        for one, other in zip(there.opinions, here.opinions, strict=True):
            assert one.principle == other.principle
            assert one.forward == pytest.approx(other.forward, abs=1e-4)
            assert one.backward == pytest.approx(other.backward, abs=1e-4)
            values += [*other.forward, *other.backward]
    # The agreement means something only if the questions have different answers.
    assert max(values) - min(values) > 0.01
    assert len(server.requests) == 1 + 3 * 3 * 2  # a first question, pairs, principles, orders
    assert [verdict.tokens for verdict in remote] == [3 * 2 * 7] * 3


def test_the_cache_labels_again_without_the_server(judge, tiny):
    with ChatServer(LikeOpenAI(tiny)) as server:
        first = judge(server).judge(PAIRS)
    assert judge(server).judge(PAIRS) == first


class Voter:
    """Samples (A) with a probability, and at times says nothing of use; no log-probabilities."""

    def __init__(self, probability, useless=0.0, refuses=False, samples=True):
        self.probability, self.useless, self.refuses = probability, useless, refuses
        self.samples = samples

    def __call__(self, got, n):
        if self.refuses and "logprobs" in got.body:
            return (422, {"error": {"message": "Unexpected fields: logprobs"}}, {})
        draws = random.Random(got.body.get("seed", 0) * self.samples)
        if got.body["messages"][0]["content"] == "Write a random number of nine digits.":
            return completion(str(draws.randrange(10**9)))
        if draws.random() < self.useless:
            return completion("I can't decide between (A) and (B).")
        chosen = "(A)" if draws.random() < self.probability else "(B)"
        return completion(f"The answer is: {chosen}")


@pytest.mark.parametrize("refuses", [False, True])
def test_votes_converge_to_the_probability(refuses, judge):
    with ChatServer(Voter(0.8, useless=0.25, refuses=refuses)) as server:
        [verdict] = judge(server, votes=400, swap=False, principles=Principles.sample).judge(
            PAIRS[:1]
        )
        # About 300 votes can be read: three standard deviations are 3 sqrt(.8 * .2 / 300) = .07.
        assert verdict.probability == pytest.approx(0.8, abs=0.07)
        assert verdict.unreadable == 0
        bodies = [got.body for got in server.requests[-400:]]
    assert len({body["seed"] for body in bodies}) == 400
    assert all("logprobs" not in body and body["temperature"] == 1 for body in bodies)


def test_a_server_that_does_not_sample_is_told_apart(judge, caplog):
    with ChatServer(Voter(0.8)) as server:
        judge(server)
    assert "may not sample" not in caplog.text
    with ChatServer(Voter(0.8, samples=False)) as server:
        judge(server)
    assert "gave the same reply to 4 samples at temperature 1" in caplog.text


def test_what_cannot_be_read_is_dropped_and_counted(judge, caplog):
    with ChatServer(Voter(0.8, useless=1.0)) as server:
        verdicts = judge(server, votes=2).judge(PAIRS)
    for verdict in verdicts:
        assert verdict.label is None
        assert verdict.probability is None
        assert verdict.unreadable == 3 * 2
        assert all(not o.forward and not o.backward for o in verdict.opinions)
    assert "36 of 36 answers could not be read" in caplog.text


def test_a_server_that_refuses_everything_is_an_error(judge):
    with (
        ChatServer(lambda got, n: (400, {"error": {"message": "no such model"}}, {})) as server,
        pytest.raises(UserError, match=r"refuses every request \(no such model\)"),
    ):
        judge(server)


class Reasoner(LikeOpenAI):
    """Thinks aloud, without end at times, and then answers as ``LikeOpenAI`` does."""

    def __call__(self, got, n):
        last = got.body["messages"][-1]["content"]
        if last.endswith("Let's think step by step:"):
            assert got.body["max_tokens"] == 32
            assert got.body["top_p"] == 1
            seed = got.body["seed"]
            text = f"Thought {seed % 1000}."
            cut = "Why?" in last and seed % 2
            return completion(text, finish="length" if cut else "stop")
        if last == "Write a random number of nine digits.":
            return completion(str(got.body["seed"]))
        if not last.startswith(f"{ONLY} So the answer is:"):
            return completion("(A)", [("(", {"(": -0.1, "I": -2}), ("A", {"A": -0.1, "B": -2})])
        thought = got.body["messages"][-2]["content"]
        question = got.body["messages"][-3]["content"]
        talk = (
            human(question.removesuffix("\n\nLet's think step by step:")),
            assistant(f"Let's think step by step: {thought}"),
            human("So the answer is:"),
        )
        self.chains.append(talk)
        a, b = self.scores(talk, "(", CHAIN_ANSWERS)
        return completion("(A)", [("(", {"(": -0.5, "x": -1}), ("A)", {"A)": a - 3, "B)": b - 3})])


def test_each_chain_is_answered_by_itself(judge, tiny):
    with ChatServer(Reasoner(tiny)) as server:
        talking = judge(server, cot=True, chains=4)
        verdicts = talking.judge(PAIRS)
    cue = "Let's think step by step:"
    bodies = [got.body for got in server.requests]
    chains = [body for body in bodies if body["messages"][-1]["content"].endswith(cue)]
    assert len({body["seed"] for body in chains}) == 3 * 3 * 2 * 4
    cut = sum("Why?" in body["messages"][-1]["content"] and body["seed"] % 2 for body in chains)
    assert 0 < cut < 24
    assert [verdict.unreadable for verdict in verdicts] == [0, 0, cut]
    asked = Asked(PAIRS[0], RULES[1], True)
    question = reasoned_question(FewShots([], RULES, 0), asked, Dialect.chat)
    expected = []
    for body in chains:
        content = body["messages"][-1]["content"]
        if content.startswith(question.conversation[0].text):
            answer = chain_answer(question, f"Thought {body['seed'] % 1000}.", Dialect.chat)
            scores = Reasoner(tiny).scores(*answer[:2], CHAIN_ANSWERS)
            expected.append(math.exp(scores[0]))
    [opinion] = [o for o in verdicts[0].opinions if o.principle == "kind"]
    assert sorted(opinion.backward) == pytest.approx(sorted(expected), abs=1e-5)
    assert len(expected) == 4


@pytest.mark.parametrize("method", [Method.contrast, Method.probe])
def test_a_server_is_asked_whatever_suits_the_local_model(judge, method):
    with ChatServer(Voter(0.5)) as server:
        verdicts = judge(server, method=method).judge(PAIRS)
    assert server.requests
    assert [verdict.probability for verdict in verdicts] == [pytest.approx(0.5, abs=0.2)] * 3


READ = {
    "(A)": 0,
    " (B)": 1,
    "B": 1,
    "A.": 0,
    "A)": 0,
    "(A": 0,
    "**(B)**": 1,
    "The answer is: (B)": 1,
    "The answer is (A).": 0,
    "So the answer is: B": 1,
    "The correct answer is (B)": 1,
    "Answer: (A)": 0,
    "Option B": 1,
    "(A) because it is kind": 0,
    "B\nbecause": 1,
    "": None,
    "(": None,
    "A reply": None,
    "Apple": None,
    "(Ab": None,
    "(C)": None,
    "(a)": None,
    "I choose (A)": None,
    "Neither (A) nor (B)": None,
    "(A) and (B)": None,
    "<think>(A)</think>": None,
}


@pytest.mark.parametrize("text", READ)
def test_a_choice_is_read_only_where_it_is_clear(text):
    assert read_choice(text) == READ[text]


def path(*places):
    """Make a reply of (token, {rival: probability}) pairs."""
    steps = tuple(
        Place(
            Token(token, math.log(rivals[token])),
            tuple(Token(text, math.log(p)) for text, p in rivals.items()),
        )
        for token, rivals in places
    )
    return ServerReply("".join(token for token, _ in places), True, steps)


def test_a_single_token_is_normalised():
    # .6 / (.6 + .2)
    assert first_option_probability(path(("(A)", {"(A)": 0.6, "(B)": 0.2}))) == pytest.approx(0.75)


def test_ways_that_the_reply_did_not_take_count_as_well():
    # A: .1 at once, and .7 * .3 after "("; B: .7 * .6 after "(" and .05 at once. The bare "A" may
    # be an article and does not count, but it does where the reply itself has a bare letter.
    reply = path(
        ("(", {"(": 0.7, "(A": 0.1, "(B": 0.05, "A": 0.09}),
        ("B", {"A": 0.3, "B": 0.6}),
        (")", {")": 0.9, "A": 0.05}),
    )
    a, b = 0.1 + 0.7 * 0.3, 0.05 + 0.7 * 0.6
    assert first_option_probability(reply) == pytest.approx(a / (a + b))
    bare = path(("B", {"B": 0.5, "A": 0.2, "(A": 0.1, "I": 0.01}))
    assert first_option_probability(bare) == pytest.approx(0.3 / 0.8)


def test_tokens_after_the_choice_change_nothing():
    start = ("A", {"A": 0.6, "B": 0.2})
    plain, longer = path(start), path(start, (")", {")": 0.5, "B": 0.5}))
    assert first_option_probability(longer) == first_option_probability(plain)


def test_an_option_that_is_not_listed_may_be_negligible_or_unknown():
    # The last listed token has .001, so B has at most that: .001 / .901 is below one percent.
    assert first_option_probability(path(("A", {"A": 0.9, "I": 0.001}))) == 1.0
    assert first_option_probability(path(("B", {"B": 0.9, "I": 0.001}))) == 0.0
    assert first_option_probability(path(("A", {"A": 0.9, "I": 0.02}))) is None


def test_a_reply_that_names_no_option_has_no_probability():
    assert first_option_probability(path(("I", {"I": 0.6, "A": 0.2, "B": 0.1}))) is None
    assert first_option_probability(ServerReply("(A)", True, None)) is None
