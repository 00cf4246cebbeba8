"""Chain of thought: sampled reasoning first, then the probability of each answer."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cai.config import FeedbackConfig
from cai.constitution.principles import draw, seed_of
from cai.constitution.prompts import (
    CHAIN_ANSWERS,
    Question,
    chain_answer,
    chain_question,
    fill_reasoning,
)
from cai.dialogue import Conversation, assistant
from cai.labelling.choice import Shots
from cai.labelling.judge import Asked
from cai.lm.generate import Sampling, generate
from cai.lm.load import LanguageModel
from cai.lm.score import option_logprobs


class ChainOfThought:
    """Samples ``feedback.chains`` chains per question and reads an answer after each."""

    def __init__(
        self, model: LanguageModel, adapter: str | None, settings: FeedbackConfig, shots: Shots
    ) -> None:
        """Use one adapter of a local model."""
        self.model, self.adapter, self.settings, self.shots = model, adapter, settings, shots
        self.options = model.chat.options(CHAIN_ANSWERS)

    def probabilities(self, questions: Sequence[Asked]) -> list[list[float]]:
        """Return the probability of the reply shown first after each chain that ended.

        A chain that ran into the token limit has come to no conclusion and is dropped.
        """
        asked = [(question, k) for question in questions for k in range(self.settings.chains)]
        rendered = [self._question(question) for question, _ in asked]
        prompts = [self.model.chat.prompt(*question) for question in rendered]
        seeds = [self._seed(question, k) for question, k in asked]
        sampling = Sampling(self.settings.chain_tokens, 1, self.settings.temperature)
        with self.model.sampling(self.adapter) as network:
            chains = generate(
                network,
                prompts,
                seeds,
                sampling,
                self.model.stop_ids,
                batch_size=self.settings.batch_size,
            )
            done = [n for n, chain in enumerate(chains) if chain.finished and len(chain.tokens) > 1]
            answers = [
                self.model.chat.prompt(
                    *chain_answer(rendered[n], self.model.chat.decode(chains[n].tokens))
                )
                for n in done
            ]
            scores = (
                option_logprobs(network, [], answers, self.options)
                if answers
                else torch.empty(0, len(self.options))
            )
        out: list[list[float]] = [[] for _ in questions]
        for n, p in zip(done, scores.softmax(-1)[:, 0].tolist(), strict=True):
            out[n // self.settings.chains].append(p)
        return out

    def _question(self, asked: Asked) -> Question:
        talk = asked.comparison.prompt.conversation
        question = chain_question(talk, asked.replies, asked.principle)
        before = self._few_shots(asked.comparison.prompt.id)
        return question._replace(conversation=(*before, *question.conversation))

    def _few_shots(self, key: str) -> Conversation:
        demonstrations, principles, seed = self.shots
        rules = draw(principles, len(demonstrations), seed, key, "chain shots")
        turns: Conversation = ()
        for n, (shot, rule) in enumerate(zip(demonstrations, rules, strict=True)):
            [swapped] = draw([False, True], 1, seed, key, "chain order", n)
            options = shot.options[::-1] if swapped else shot.options
            right = 1 - shot.better if swapped else shot.better
            question = chain_question(shot.prompt.conversation, options, rule)
            answer = chain_answer(question, fill_reasoning(shot.reasoning, int(swapped)))
            said = assistant(answer.opening + CHAIN_ANSWERS[right])
            turns = (*turns, *answer.conversation, said)
        return turns

    def _seed(self, asked: Asked, chain: int) -> int:
        key = (asked.comparison.prompt.id, asked.principle.id, asked.swapped, chain)
        return seed_of(self.shots[2], "chain", *key)
