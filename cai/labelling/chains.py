"""Chain of thought: sampled reasoning first, then the probability of each answer."""

from __future__ import annotations

from collections.abc import Sequence

from cai.config import Dialect, FeedbackConfig
from cai.constitution.prompts import (
    CHAIN_ANSWERS,
    Question,
    answered,
    chain_answer,
    chain_question,
    fill_reasoning,
)
from cai.dialogue import Conversation
from cai.labelling.answers import Answer, Asked, FeedbackModel, FewShots
from cai.lm.generate import Sampling
from cai.seeds import draw, seed_of


class ChainOfThought:
    """Samples ``feedback.sampling.chains`` chains per question and reads an answer after each."""

    def __init__(
        self, feedback_model: FeedbackModel, settings: FeedbackConfig, shots: FewShots
    ) -> None:
        """Use one adapter of a local model."""
        self.model, self.adapter = feedback_model.model, feedback_model.adapter
        self.settings, self.shots = settings, shots
        self.options = self.model.chat.options(CHAIN_ANSWERS)

    def ask(self, questions: Sequence[Asked]) -> list[Answer]:
        """Return the probability of the reply shown first after each chain that ended.

        A chain that ran into the token limit has come to no conclusion and is dropped.
        """
        asked = [
            (question, k) for question in questions for k in range(self.settings.sampling.chains)
        ]
        rendered = [reasoned_question(self.shots, q, self.model.chat.dialect) for q, _ in asked]
        prompts = [self.model.chat.prompt(*question) for question in rendered]
        seeds = [chain_seed(self.shots.seed, question, k) for question, k in asked]
        settings = self.settings.sampling
        sampling = Sampling(settings.chain_tokens, 1, settings.temperature)
        sampler = self.model.sampler
        chains = sampler.generate(self.adapter, prompts, seeds, sampling)
        done = [n for n, chain in enumerate(chains) if chain.finished and len(chain.tokens) > 1]
        answers = [
            self.model.chat.prompt(*self._conclusion(rendered[n], chains[n].tokens)) for n in done
        ]
        scores = sampler.option_logprobs(self.adapter, answers, self.options)
        found: list[list[float]] = [[] for _ in questions]
        tokens = [0] * len(questions)
        for n, (prompt, chain) in enumerate(zip(prompts, chains, strict=True)):
            tokens[n // self.settings.sampling.chains] += len(prompt) + len(chain.tokens)
        read = sum(map(len, self.options))
        probabilities = scores.softmax(-1)[:, 0].tolist()
        for n, p, answer in zip(done, probabilities, answers, strict=True):
            found[n // self.settings.sampling.chains].append(p)
            tokens[n // self.settings.sampling.chains] += len(answer) + read
        return [Answer(*pair) for pair in zip(found, tokens, strict=True)]

    def _conclusion(self, question: Question, chain: Sequence[int]) -> Question:
        return chain_answer(question, self.model.chat.decode(chain), self.model.chat.dialect)


def reasoned_question(shots: FewShots, asked: Asked, dialect: Dialect) -> Question:
    """Put a question with its few-shots, reasoning included, before it."""
    talk = asked.comparison.prompt.conversation
    question = chain_question(talk, asked.replies, asked.principle)
    before = _few_shot_turns(shots, asked.comparison.prompt.id, dialect)
    return question._replace(conversation=(*before, *question.conversation))


def _few_shot_turns(shots: FewShots, key: str, dialect: Dialect) -> Conversation:
    rules = draw(shots.principles, len(shots.demonstrations), shots.seed, key, "chain shots")
    turns: Conversation = ()
    for n, (shot, rule) in enumerate(zip(shots.demonstrations, rules, strict=True)):
        [swapped] = draw([False, True], 1, shots.seed, key, "chain order", n)
        options = shot.options[::-1] if swapped else shot.options
        right = 1 - shot.better if swapped else shot.better
        question = chain_question(shot.prompt.conversation, options, rule)
        reasoning = fill_reasoning(shot.reasoning, int(swapped))
        asked = chain_answer(question, reasoning, dialect)
        turns = (*turns, *answered(asked, CHAIN_ANSWERS[right]))
    return turns


def chain_seed(seed: int, asked: Asked, chain: int) -> int:
    """Return the seed of one of a question's chains."""
    key = (asked.comparison.prompt.id, asked.principle.id, asked.swapped, chain)
    return seed_of(seed, "chain", *key)
