"""Multiple choice: the exact probability of " (A)" and " (B)", all their tokens counted."""

from __future__ import annotations

from collections.abc import Sequence

from cai.constitution.prompts import ANSWERS, Question, answered, comparison_question
from cai.dialogue import Conversation
from cai.labelling.answers import Answer, Asked, FeedbackModel, FewShots
from cai.seeds import draw


class MultipleChoice:
    """Reads the answer off the model's next-token probabilities."""

    def __init__(self, feedback_model: FeedbackModel, shots: FewShots) -> None:
        """Use one adapter of a local model."""
        self.model, self.adapter = feedback_model.model, feedback_model.adapter
        self.shots, self.options = shots, self.model.chat.options(ANSWERS)

    def ask(self, questions: Sequence[Asked]) -> list[Answer]:
        """Return the probability of the reply shown first, normalised over the options."""
        prompts = [self.render(question) for question in questions]
        scores = self.model.sampler.option_logprobs(self.adapter, prompts, self.options)
        read = sum(map(len, self.options))
        return [
            Answer([p], len(prompt) + read)
            for p, prompt in zip(scores.softmax(-1)[:, 0].tolist(), prompts, strict=True)
        ]

    def render(self, asked: Asked) -> list[int]:
        """Encode a question with its few-shots before it."""
        return self.model.chat.prompt(*choice_question(self.shots, asked))


def choice_question(shots: FewShots, asked: Asked) -> Question:
    """Put a question with its few-shots before it."""
    talk = asked.comparison.prompt.conversation
    question = comparison_question(talk, asked.replies, asked.principle)
    before = few_shot_turns(shots, asked.comparison.prompt.id)
    return question._replace(conversation=(*before, *question.conversation))


def few_shot_turns(shots: FewShots, key: str) -> Conversation:
    """Return answered questions, each under a principle of its own and in an order of its own.

    They depend on the comparison alone, so all principles and both orders share them as a prefix
    that is computed once.
    """
    rules = draw(shots.principles, len(shots.demonstrations), shots.seed, key, "shots")
    turns: Conversation = ()
    for n, (shot, rule) in enumerate(zip(shots.demonstrations, rules, strict=True)):
        [swapped] = draw([False, True], 1, shots.seed, key, "order", n)
        options = shot.options[::-1] if swapped else shot.options
        right = 1 - shot.better if swapped else shot.better
        question = comparison_question(shot.prompt.conversation, options, rule)
        turns = (*turns, *answered(question, ANSWERS[right]))
    return turns
