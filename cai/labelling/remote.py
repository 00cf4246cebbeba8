"""Multiple choice and chains of thought with a model behind a server.

A server always begins the assistant's turn itself, so what a local model is made to begin its
answer with ("The answer is:") stands at the end of the human's turn instead.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cai.config import Dialect, EndpointConfig, FeedbackConfig
from cai.constitution.prompts import ANSWER_OPENING, Question, as_request, chain_answer
from cai.dialogue import Conversation, human, to_text
from cai.labelling.chains import chain_seed, reasoned_question
from cai.labelling.choice import Shots, choice_question
from cai.labelling.endpoint import Endpoint, Refused, Request
from cai.labelling.judge import Answer, Answerer, Asked
from cai.labelling.reply import Reply, first_option_probability, read_choice
from cai.seeds import seed_of

log = logging.getLogger(__name__)

ANSWER_TOKENS = 12
"""Room for "The answer is: (A)" in any tokenizer, and not for an essay."""
TOP = 20
"""Rivals per token, the most that servers give."""
SAMPLES = 4
"""Samples that are compared to see whether a server samples."""
_RANDOM = "Write a random number of nine digits."
_PROBE = Question(
    (human("Which of these is a fruit?\nOptions:\n (A) [[[an apple]]]\n (B) [[[a stone]]]"),),
    ANSWER_OPENING,
)
_EXACT = {"max_tokens": ANSWER_TOKENS, "temperature": 0.0, "logprobs": True, "top_logprobs": TOP}


class Reading(NamedTuple):
    """What was read off the answer to one question: a probability, None if nothing could be."""

    probability: float | None
    tokens: int


class ChoiceReader:
    """Asks for one of two options and makes a probability of the answer."""

    def __init__(self, endpoint: Endpoint, votes: int, seed: int) -> None:
        """Find out by a question whether the server gives log-probabilities.

        Raises:
            UserError: If it does not answer.
        """
        self.endpoint, self.votes, self.seed = endpoint, votes, seed
        self.exact = _gives_logprobs(endpoint)
        how = "read off log-probabilities" if self.exact else f"shares of {votes} sampled votes"
        log.info("%s: answers are %s", endpoint.settings.url, how)

    def read(self, conversations: Sequence[Conversation]) -> list[Reading]:
        """Return the probability of the first option in each conversation."""
        votes = 1 if self.exact else self.votes
        requests = [
            Request(talk, _EXACT if self.exact else self._vote(talk, n))
            for talk in conversations
            for n in range(votes)
        ]
        replies = self.endpoint.ask_all(requests)
        values = [None if reply is None else self._value(reply) for reply in replies]
        if unread := values.count(None):
            log.warning("%d of %d answers could not be read", unread, len(values))
        readings = []
        for start in range(0, len(values), votes):
            found = [value for value in values[start : start + votes] if value is not None]
            tokens = sum(reply.tokens for reply in replies[start : start + votes] if reply)
            readings.append(Reading(sum(found) / len(found) if found else None, tokens))
        return readings

    def _value(self, reply: Reply) -> float | None:
        if self.exact:
            return first_option_probability(reply)
        choice = read_choice(reply.text)
        return None if choice is None else float(choice == 0)

    def _vote(self, talk: Conversation, n: int) -> dict[str, Any]:
        seed = seed_of(self.seed, "vote", to_text(talk), n)
        return _sampled(ANSWER_TOKENS, 1.0, seed)


class RemoteChoice:
    """Multiple choice."""

    def __init__(self, reader: ChoiceReader, shots: Shots) -> None:
        """Ask as the local multiple choice does."""
        self.reader, self.shots = reader, shots

    def ask(self, questions: Sequence[Asked]) -> list[Answer]:
        """Return the probability of the reply shown first."""
        talks = [as_request(choice_question(self.shots, asked)) for asked in questions]
        return [Answer([] if p is None else [p], tokens) for p, tokens in self.reader.read(talks)]


class RemoteChains:
    """Samples ``feedback.chains`` chains per question and asks for an answer after each."""

    def __init__(self, reader: ChoiceReader, settings: FeedbackConfig, shots: Shots) -> None:
        """Ask as the local chains of thought do."""
        self.reader, self.settings, self.shots = reader, settings, shots

    def ask(self, questions: Sequence[Asked]) -> list[Answer]:
        """Return the probability of the reply shown first after each chain that ended.

        A chain that ran into the token limit has come to no conclusion and is dropped.
        """
        asked = [(question, k) for question in questions for k in range(self.settings.chains)]
        rendered = [reasoned_question(self.shots, q, Dialect.chat) for q, _ in asked]
        chains = self.reader.endpoint.ask_all(
            [
                Request(as_request(question), self._sampling(q, k))
                for question, (q, k) in zip(rendered, asked, strict=True)
            ]
        )
        done = {
            n: chain_answer(rendered[n], chain.text, Dialect.chat)
            for n, chain in enumerate(chains)
            if chain and chain.finished and chain.text.strip()
        }
        if dropped := len(chains) - len(done):
            log.warning("%d of %d chains did not end and were dropped", dropped, len(chains))
        readings = self.reader.read([as_request(answer) for answer in done.values()])
        answers = [Answer([], 0) for _ in questions]
        for n, reading in zip(done, readings, strict=True):
            self._add(answers, n, reading)
        for n, chain in enumerate(chains):
            self._add(answers, n, Reading(None, chain.tokens if chain else 0))
        return answers

    def _add(self, answers: list[Answer], n: int, reading: Reading) -> None:
        """Count what was read after chain ``n``, or spent on it, for its question."""
        found, tokens = answers[n // self.settings.chains]
        found += [] if reading.probability is None else [reading.probability]
        answers[n // self.settings.chains] = Answer(found, tokens + reading.tokens)

    def _sampling(self, asked: Asked, chain: int) -> dict[str, Any]:
        seed = chain_seed(self.shots[2], asked, chain)
        return _sampled(self.settings.chain_tokens, self.settings.temperature, seed)


def remote_answerer(settings: FeedbackConfig, shots: Shots, cache: Path) -> Answerer:
    """Make the way of asking that the settings name, by the endpoint that they name.

    Raises:
        UserError: If the server does not answer.
    """
    reader = _reader(settings.endpoint, shots, cache)
    if not reader.exact or (settings.cot and settings.temperature > 0):
        _check_sampling(reader.endpoint)
    if settings.cot:
        return RemoteChains(reader, settings, shots)
    return RemoteChoice(reader, shots)


def remote_choice(settings: EndpointConfig, shots: Shots, cache: Path) -> RemoteChoice:
    """Make multiple choice by an endpoint, whatever the feedback stage's settings are.

    Raises:
        UserError: If the server does not answer.
    """
    reader = _reader(settings, shots, cache)
    if not reader.exact:
        _check_sampling(reader.endpoint)
    return RemoteChoice(reader, shots)


def _reader(settings: EndpointConfig, shots: Shots, cache: Path) -> ChoiceReader:
    return ChoiceReader(Endpoint(settings, cache), settings.votes, shots[2])


def _gives_logprobs(endpoint: Endpoint) -> bool:
    """Ask for them; a server without may leave them out or refuse the whole request."""
    try:
        return endpoint.ask(Request(as_request(_PROBE), _EXACT)).places is not None
    except Refused as refusal:
        log.debug("log-probabilities refused: %s", refusal)
        return False


def _check_sampling(endpoint: Endpoint) -> None:
    """Warn if samples of what should be random are all alike.

    Some servers take the likeliest token at any temperature, and votes then say only 0 or 1.
    """
    talk = (human(_RANDOM),)
    tries = [Request(talk, _sampled(ANSWER_TOKENS, 1.0, n)) for n in range(SAMPLES)]
    replies = endpoint.ask_all(tries)
    if len({reply.text for reply in replies if reply}) == 1:
        log.warning(
            "%s gave the same reply to %d samples at temperature 1: it may not sample, and then "
            "votes and chains are all alike; with transformers serve, set do_sample to true in "
            "the model's generation_config.json",
            endpoint.settings.url,
            SAMPLES,
        )


def _sampled(tokens: int, temperature: float, seed: int) -> dict[str, Any]:
    """Ask for a sample of the model's own distribution; every server takes 31 bits of seed."""
    short = seed & 0x7FFF_FFFF
    return {"max_tokens": tokens, "temperature": temperature, "top_p": 1.0, "seed": short}
