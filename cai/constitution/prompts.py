"""The words in which principles are put to a model: pure functions from text to text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cai.config import ComparisonPrinciple, Dialect, RevisionPrinciple
from cai.dialogue import Conversation, Role, Turn, assistant, human, to_text

OPTIONS = ("A", "B")
ANSWER_OPENING = "The answer is:"
ANSWERS = (" (A)", " (B)")
CHAIN_OPENING = "Let's think step by step:"
CHAIN_QUESTION = "So the answer is:"
CHAIN_ANSWER_OPENING = "("
CHAIN_ANSWERS = ("A)", "B)")
_ONLY = "Answer with (A) or (B) only."
_CUES = {
    ANSWER_OPENING: f"{{}}\n\n{_ONLY} {ANSWER_OPENING}",
    CHAIN_OPENING: f"{{}}\n\n{CHAIN_OPENING}",
    CHAIN_ANSWER_OPENING: f"{_ONLY} {{}}",
}
_SHORT = {Role.HUMAN: "H", Role.ASSISTANT: "A"}
_LONG = {Role.HUMAN: "Human", Role.ASSISTANT: "Assistant"}


class Question(NamedTuple):
    """A conversation, how its next turn begins, and whose turn that is."""

    conversation: Conversation
    opening: str
    speaker: Role = Role.ASSISTANT


def critique_request(
    conversation: Conversation, reply: str, principle: RevisionPrinciple
) -> Conversation:
    """Ask for a critique of the last reply under a principle."""
    return (*conversation, assistant(reply), human(principle.critique))


def revision_request(
    conversation: Conversation, reply: str, principle: RevisionPrinciple, critique: str | None
) -> Conversation:
    """Ask for a revision of the last reply, after its critique or directly."""
    if critique is None:
        return (*conversation, assistant(reply), human(principle.revision))
    asked = critique_request(conversation, reply, principle)
    return (*asked, assistant(critique), human(principle.revision))


def comparison_question(
    conversation: Conversation, replies: Sequence[str], principle: ComparisonPrinciple
) -> Question:
    """Ask which of two replies fits a principle better, as a multiple choice."""
    text = (
        "Consider the following conversation between a human and an assistant:"
        f"{to_text(conversation, _LONG)}\n\n{principle.text}\n{_options(replies)}"
    )
    return Question((human(text),), ANSWER_OPENING)


def chain_question(
    conversation: Conversation, replies: Sequence[str], principle: ComparisonPrinciple
) -> Question:
    """Ask the same with room for a chain of thought; turns are renamed H: and A:."""
    text = (
        "Consider the following conversation between a human (H) and an assistant (A):"
        f"{to_text(conversation, _SHORT)}\n\n{principle.text}\n{_options(replies)}"
    )
    return Question((human(text),), CHAIN_OPENING)


def chain_answer(question: Question, chain: str, dialect: Dialect) -> Question:
    """Ask for the answer that a chain of thought has come to.

    In plain text the human's second turn is left open and goes on with the answer, as in the
    paper; a chat template closes that turn, so there the assistant's begins with the bracket.
    """
    said = (*question.conversation, assistant(f"{question.opening} {chain.strip()}"))
    if dialect is Dialect.text:
        return Question(said, f"{CHAIN_QUESTION} {CHAIN_ANSWER_OPENING}", Role.HUMAN)
    return Question((*said, human(CHAIN_QUESTION)), CHAIN_ANSWER_OPENING)


def answered(question: Question, answer: str) -> Conversation:
    """Return a question with its answer, to stand before another as a few-shot."""
    return (*question.conversation, Turn(question.speaker, question.opening + answer))


def as_request(question: Question) -> Conversation:
    """Rewrite a question for a server, which begins the assistant's turn itself.

    How the assistant was to begin, here and in few-shots, becomes the end of the human's turn.
    """
    says = [*question.conversation[1::2], assistant(question.opening)]
    turns: list[Turn] = []
    for asked, said in zip(question.conversation[::2], says, strict=True):
        opening = next(opening for opening in _CUES if said.text.startswith(opening))
        turns.append(human(_CUES[opening].format(asked.text)))
        whole = opening == CHAIN_ANSWER_OPENING  # the bracket belongs to the answer
        turns.append(said if whole else assistant(said.text.removeprefix(opening).strip()))
    return tuple(turns[:-1])


def under_rule(conversation: Conversation, rule: str) -> Conversation:
    """Put a rule for the assistant before the last human turn."""
    *before, last = conversation
    return (*before, human(f"(A rule for the reply: {rule})\n\n{last.text}"))


def fill_reasoning(reasoning: str, first: int) -> str:
    """Name the options in a demonstration's reasoning; ``first`` is the place of {first}."""
    names = {"first": f"({OPTIONS[first]})", "second": f"({OPTIONS[1 - first]})"}
    for key, name in names.items():
        reasoning = reasoning.replace("{" + key + "}", name)
    return reasoning


def _options(replies: Sequence[str]) -> str:
    lines = [f" ({name}) [[[{reply}]]]" for name, reply in zip(OPTIONS, replies, strict=True)]
    return "\n".join(["Options:", *lines])
