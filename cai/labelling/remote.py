"""Multiple choice and chains of thought with a model behind a server.

A server always begins the assistant's turn itself, so what a local model is made to begin its
answer with ("The answer is:") stands at the end of the human's turn instead.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from cai.config import Dialect, EndpointConfig, FeedbackConfig
from cai.constitution.prompts import as_request, chain_answer
from cai.dialogue import Conversation, to_text
from cai.labelling.answers import Answer, Answerer, Asked, FewShots
from cai.labelling.chains import chain_seed, reasoned_question
from cai.labelling.choice import choice_question
from cai.labelling.choice_reading import first_option_probability, read_choice
from cai.labelling.endpoint import Endpoint, Request
from cai.labelling.handshake import ANSWER_TOKENS, EXACT, check_sampling, gives_logprobs, sampled
from cai.labelling.reply import ServerReply
from cai.seeds import seed_of

log = logging.getLogger(__name__)


class ChoiceReader:
    """Asks for one of two options and makes a probability of the answer."""

    def __init__(self, endpoint: Endpoint, votes: int, seed: int) -> None:
        """Find out by a question whether the server gives log-probabilities.

        Raises:
            UserError: If it does not answer.
        """
        self.endpoint, self.votes, self.seed = endpoint, votes, seed
        self.exact = gives_logprobs(endpoint)
        url = endpoint.settings.url
        if self.exact:
            log.info("%s: answers are read off log-probabilities", url)
            return
        # A share p of n votes has the standard error sqrt(p (1 - p) / n), at most 1 / (2 sqrt(n)).
        log.warning(
            "%s gives no log-probabilities: answers are shares of %d sampled votes, which takes %d "
            "requests per question instead of one, %.1f s at %s.per_second=%g, and leaves each "
            "with a standard error of up to %.2f",
            url,
            votes,
            votes,
            votes / endpoint.settings.per_second,
            endpoint.settings.node,
            endpoint.settings.per_second,
            0.5 / math.sqrt(votes),
        )

    def read(self, conversations: Sequence[Conversation]) -> list[Answer]:
        """Return the probability of the first option in each conversation, if it can be read."""
        votes = 1 if self.exact else self.votes
        requests = [
            Request(talk, EXACT if self.exact else self._vote(talk, n))
            for talk in conversations
            for n in range(votes)
        ]
        replies = self.endpoint.ask_all(requests)
        values = [None if reply is None else self._value(reply) for reply in replies]
        if unread := values.count(None):
            log.warning("%d of %d answers could not be read", unread, len(values))
        answers = []
        for start in range(0, len(values), votes):
            found = [value for value in values[start : start + votes] if value is not None]
            tokens = sum(reply.tokens for reply in replies[start : start + votes] if reply)
            answers.append(Answer([sum(found) / len(found)] if found else [], tokens))
        return answers

    def _value(self, reply: ServerReply) -> float | None:
        if self.exact:
            return first_option_probability(reply)
        choice = read_choice(reply.text)
        return None if choice is None else float(choice == 0)

    def _vote(self, talk: Conversation, n: int) -> dict[str, float]:
        seed = seed_of(self.seed, "vote", to_text(talk), n)
        return sampled(ANSWER_TOKENS, 1.0, seed)


class RemoteChoice:
    """Multiple choice."""

    def __init__(self, reader: ChoiceReader, shots: FewShots) -> None:
        """Ask as the local multiple choice does."""
        self.reader, self.shots = reader, shots

    def ask(self, questions: Sequence[Asked]) -> list[Answer]:
        """Return the probability of the reply shown first."""
        talks = [as_request(choice_question(self.shots, asked)) for asked in questions]
        return self.reader.read(talks)


class RemoteChains:
    """Samples some chains per question and asks for an answer after each."""

    def __init__(self, reader: ChoiceReader, settings: FeedbackConfig, shots: FewShots) -> None:
        """Ask as the local chains of thought do."""
        self.reader, self.settings, self.shots = reader, settings, shots

    def ask(self, questions: Sequence[Asked]) -> list[Answer]:
        """Return the probability of the reply shown first after each chain that ended.

        A chain that ran into the token limit has come to no conclusion and is dropped.
        """
        asked = [
            (question, k) for question in questions for k in range(self.settings.sampling.chains)
        ]
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
        read = self.reader.read([as_request(answer) for answer in done.values()])
        after = dict(zip(done, read, strict=True))
        per_question = self.settings.sampling.chains
        return [
            self._together(range(n, n + per_question), chains, after)
            for n in range(0, len(chains), per_question)
        ]

    @staticmethod
    def _together(
        numbers: Sequence[int], chains: Sequence[ServerReply | None], after: Mapping[int, Answer]
    ) -> Answer:
        """Put together what was read after the chains of one question, and what all of it took."""
        read = [after[n] for n in numbers if n in after]
        spent = [chain.tokens for n in numbers if (chain := chains[n])]
        return Answer(
            [p for answer in read for p in answer.probabilities],
            sum(spent) + sum(answer.tokens for answer in read),
        )

    def _sampling(self, asked: Asked, chain: int) -> dict[str, float]:
        seed = chain_seed(self.shots.seed, asked, chain)
        sampling = self.settings.sampling
        return sampled(sampling.chain_tokens, sampling.temperature, seed)


def remote_answerer(settings: FeedbackConfig, shots: FewShots, cache: Path) -> Answerer:
    """Make the way of asking that the settings name, by the endpoint that they name.

    Raises:
        UserError: If the server does not answer.
    """
    reader = _reader(settings.endpoint, shots, cache)
    if not reader.exact or settings.cot:
        check_sampling(reader.endpoint)
    if settings.cot:
        return RemoteChains(reader, settings, shots)
    return RemoteChoice(reader, shots)


def remote_choice(settings: EndpointConfig, shots: FewShots, cache: Path) -> RemoteChoice:
    """Make multiple choice by an endpoint, whatever the feedback stage's settings are.

    Raises:
        UserError: If the server does not answer.
    """
    reader = _reader(settings, shots, cache)
    if not reader.exact:
        check_sampling(reader.endpoint)
    return RemoteChoice(reader, shots)


def _reader(settings: EndpointConfig, shots: FewShots, cache: Path) -> ChoiceReader:
    return ChoiceReader(Endpoint(settings, cache), settings.votes, shots.seed)
