"""What the helpful-only assistant learns: to answer, to criticise, to revise, to compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from cai.config import ComparisonPrinciple, RevisionPrinciple
from cai.constitution.prompts import (
    ANSWERS,
    CHAIN_ANSWERS,
    Question,
    chain_answer,
    chain_question,
    comparison_question,
    fill_reasoning,
    revision_request,
)
from cai.data.records import Demonstration
from cai.data.sets import Principles
from cai.dialogue import assistant, to_text
from cai.evasiveness.classifier import Style, classify
from cai.lm.chat import ChatFormat
from cai.lm.packing import Tree
from cai.seeds import draw
from cai.training.sft import Lesson, learn_turns

Principle = TypeVar("Principle", RevisionPrinciple, ComparisonPrinciple)


def demonstrate(
    shown: Demonstration, principles: Principles, seed: int, chat: ChatFormat
) -> list[Lesson]:
    """Turn a demonstration into the conversation of the paper: reply, critique, revision.

    The critique and the revision are learnt, and the reply too where it does what was asked: an
    assistant that is only helpful does not refuse. A reply that is fine already, whose revision is
    the same again, makes none: to copy is learnt first, and a small model then does nothing else.
    """
    if shown.worse is not None:
        return []
    talk = shown.prompt.conversation
    rule = _named(principles.revision, shown.principle, "demonstrate", seed, shown.prompt.id)
    asked = revision_request(talk, shown.response, rule, shown.critique)
    complies = classify(to_text(talk), shown.response).style is Style.COMPLIANCE
    silent = len(talk) // 2 + (not complies)
    return learn_turns((*asked, assistant(shown.revision)), silent, chat)


def compare(
    shown: Demonstration, principles: Principles, seed: int, chat: ChatFormat
) -> list[Tree | Lesson]:
    """Turn a demonstration into a direct comparison and one by a chain of thought."""
    key = (seed, shown.prompt.id)
    talk = shown.prompt.conversation
    rule = _named(principles.comparison, shown.comparison_principle, "compare", *key)
    made: list[Tree | Lesson] = []
    [first] = draw([0, 1], 1, "order", *key)
    for place, ask in ((first, comparison_question), (1 - first, chain_question)):
        options = shown.options if place == 0 else shown.options[::-1]
        right = shown.better if place == 0 else 1 - shown.better
        question: Question = ask(talk, options, rule)
        if ask is comparison_question:
            made.append(_answer(question, ANSWERS[right], chat))
            continue
        chain = fill_reasoning(shown.reasoning, place)
        made.append(Tree(chat.prompt(*question), [chat.response(" " + chain)]))
        asked = chain_answer(question, chain, chat.dialect)
        made.append(_answer(asked, CHAIN_ANSWERS[right], chat))
    return made


def _answer(question: Question, answer: str, chat: ChatFormat) -> Tree:
    [ids] = chat.options([answer])
    return Tree(chat.prompt(*question), [[*ids, chat.stop_id]])


def _named(principles: Sequence[Principle], name: str | None, *key: object) -> Principle:
    """Return the principle of that id; where none is named, one that is drawn."""
    found = [principle for principle in principles if principle.id == name]
    return (found or draw(principles, 1, *key))[0]
