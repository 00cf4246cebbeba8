"""Methods that read each reply by itself, so that the order of the two can't matter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from cai.algorithms.calibration import sigmoid
from cai.constitution.prompts import under_rule
from cai.labelling.answers import Answer, Asked
from cai.lm.chat import ChatFormat
from cai.lm.packing import Tree


class PairScore(NamedTuple):
    """Log-odds that the first reply of a pair is the better one, and the tokens read for it."""

    log_odds: float
    tokens: int


def reply_tree(chat: ChatFormat, asked: Asked, rule: str) -> Tree:
    """Encode the conversation under a rule, and both replies to it."""
    prompt = chat.prompt(under_rule(asked.comparison.prompt.conversation, rule))
    return Tree(prompt, [chat.response(reply) for reply in asked.replies])


def ask_once(
    questions: Sequence[Asked], read: Callable[[Sequence[Asked]], Sequence[PairScore]]
) -> list[Answer]:
    """Answer the questions; both orders of a pair come from one reading of it.

    Args:
        questions: In any order of the replies.
        read: Reads questions that are not swapped.
    """
    straight = {_pair(q): q._replace(swapped=False) for q in questions}
    scores = dict(zip(straight, read(list(straight.values())), strict=True))
    answers = []
    for question in questions:
        log_odds, tokens = scores[_pair(question)]
        [p] = sigmoid([-log_odds if question.swapped else log_odds]).tolist()
        answers.append(Answer([p], tokens))
    return answers


def _pair(question: Asked) -> tuple[object, str]:
    return question.comparison, question.principle.id
