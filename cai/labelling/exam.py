"""Questions with two or more options, put to a model directly or after a chain of thought."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from cai.config import EvaluateConfig
from cai.constitution.prompts import CHAIN_OPENING, Question, answered, chain_answer
from cai.data.paper_evals import ENDING, Item
from cai.dialogue import Conversation, human
from cai.errors import UserError
from cai.lm.generate import Completion, Sampling
from cai.lm.load import LanguageModel
from cai.seeds import seed_of

SHOTS = 5
"""Answered questions shown first, as many as the paper's comparisons have."""


@dataclass(frozen=True)
class ExamAnswer:
    """What a model says to one question.

    Attributes:
        chains: The probability of each option, normalised over them, by chain of thought; a
            direct answer is one chain. None for a chain that came to no conclusion.
        fits: Whether the question fits the model's context; if not there are no chains.
    """

    chains: list[list[float] | None]
    fits: bool = True


TOO_LONG = ExamAnswer([], fits=False)


class Examinee(Protocol):
    """Answers questions."""

    def answers(self, items: Sequence[Item]) -> list[ExamAnswer]:
        """Return the answer to each question."""
        ...


class ExamShots(NamedTuple):
    """Two sets of answered questions, so that none is shown before a question like it."""

    usual: Sequence[Item]
    other: Sequence[Item]

    def before(self, item: Item) -> Sequence[Item]:
        """Return those to show before a question."""
        related = any(shot.group == item.group for shot in self.usual)
        return self.other if related else self.usual


def draw_shots(items: Sequence[Item], seed: int) -> ExamShots:
    """Draw from the shorter half of a test's questions, each right answer as often as can be."""
    short = sorted(items, key=lambda item: len(item.text))[: max(2, len(items) // 2)]
    by_group = {item.group: item for item in short}
    pool = sorted(by_group.values(), key=lambda item: seed_of(seed, "paper shots", item.id))
    size = min(SHOTS, len(pool) // 2)
    usual, other = [_take(pool, size) for _ in range(2)]
    return ExamShots(usual, other)


def _take(pool: list[Item], size: int) -> list[Item]:
    taken: list[Item] = []
    for _ in range(size):
        shown = [item.right[0] for item in taken]
        best = min(pool, key=lambda item: shown.count(item.right[0]))
        pool.remove(best)
        taken.append(best)
    return taken


class DirectExam:
    """Reads the probabilities of the options off the model right after "The answer is:"."""

    def __init__(
        self, model: LanguageModel, adapter: str | None, shots: ExamShots | None = None
    ) -> None:
        """Use one adapter; without shots the question stands alone."""
        self.model, self.adapter, self.shots = model, adapter, shots

    def answers(self, items: Sequence[Item]) -> list[ExamAnswer]:
        """Return the answer to each question."""
        answers = [TOO_LONG] * len(items)
        # Questions after the same shots are asked together, so that these are read once.
        groups: dict[tuple[str, ...], list[tuple[int, list[int]]]] = {}
        for n, item in enumerate(items):
            if fitting := self._render(item):
                ids, shown = fitting
                groups.setdefault((*shown, *item.letters), []).append((n, ids))
        for group in groups.values():
            numbers, prompts = zip(*group, strict=True)
            options = [f" ({letter})" for letter in items[numbers[0]].letters]
            shares = _option_shares(self.model, self.adapter, prompts, options)
            for n, probabilities in zip(numbers, shares, strict=True):
                answers[n] = ExamAnswer([probabilities])
        return answers

    def _render(self, item: Item) -> tuple[list[int], list[str]] | None:
        """Encode a question after as many shots as fit, and name these."""
        shots = self.shots.before(item) if self.shots else []
        for count in range(len(shots), -1, -1):
            shown = shots[:count]
            question = direct_question(item)
            before = [turn for shot in shown for turn in _answered(shot)]
            question = question._replace(conversation=(*before, *question.conversation))
            if ids := _encode(self.model, question, room=len(" (A)")):
                return ids, [shot.id for shot in shown]
        return None


class ChainExam:
    """Samples chains of thought and reads the answer after each."""

    def __init__(
        self,
        model: LanguageModel,
        adapter: str | None,
        settings: EvaluateConfig,
        plan: tuple[int, int],
    ) -> None:
        """Use one adapter; ``plan`` is the number of chains per question and the seed."""
        self.model, self.adapter, self.settings = model, adapter, settings
        self.chains, self.seed = plan
        self.sampling = Sampling(settings.paper_tests.chain_tokens, 1, settings.temperature)

    def answers(self, items: Sequence[Item]) -> list[ExamAnswer]:
        """Return the answers after each chain; one that ran into the token limit has none."""
        prompts = [self._fitting(chain_question(item)) for item in items]
        asked = [(n, k) for n, ids in enumerate(prompts) if ids for k in range(self.chains)]
        said = self._sample(
            [prompts[n] or [] for n, _ in asked],
            [seed_of(self.seed, "paper chain", items[n].id, k) for n, k in asked],
        )
        answers = [ExamAnswer([None] * self.chains) if ids else TOO_LONG for ids in prompts]
        ended: dict[tuple[str, ...], list[tuple[int, int, list[int]]]] = {}
        for (n, k), chain in zip(asked, said, strict=True):
            if ids := self._asked_for_answer(items[n], chain):
                ended.setdefault(items[n].letters, []).append((n, k, ids))
        for letters, group in ended.items():
            options = [f"{letter})" for letter in letters]
            shares = _option_shares(self.model, self.adapter, [ids for *_, ids in group], options)
            for (n, k, _), probabilities in zip(group, shares, strict=True):
                answers[n].chains[k] = probabilities
        return answers

    def _sample(self, prompts: list[list[int]], seeds: list[int]) -> list[Completion]:
        return self.model.sampler.generate(self.adapter, prompts, seeds, self.sampling)

    def _fitting(self, question: Question) -> list[int] | None:
        """Encode a question if it, a chain and the request for the answer fit the context."""
        room = self.sampling.max_new_tokens + len("A)")
        if _encode(self.model, chain_answer(question, "", self.model.chat.dialect), room) is None:
            return None
        return _encode(self.model, question, room)

    def _asked_for_answer(self, item: Item, chain: Completion) -> list[int] | None:
        """Encode the request for the answer that a chain has come to; None if it has not."""
        if not chain.finished or len(chain.tokens) < 2:
            return None
        said = self.model.chat.decode(chain.tokens)
        question = chain_answer(chain_question(item), said, self.model.chat.dialect)
        return _encode(self.model, question, room=len("A)"))


def direct_question(item: Item) -> Question:
    """Ask in the released words."""
    return Question((human(item.text),), ENDING)


def chain_question(item: Item) -> Question:
    """Ask with room for a chain of thought; turns are renamed H: and A:, as in comparisons."""
    text = item.text.replace("\n\nHuman:", "\n\nH:").replace("\n\nAssistant:", "\n\nA:")
    return Question((human(text),), CHAIN_OPENING)


def _option_shares(
    model: LanguageModel,
    adapter: str | None,
    prompts: Sequence[list[int]],
    options: Sequence[str],
) -> list[list[float]]:
    """Return the probability of each option after each prompt, normalised over the options."""
    answers = model.chat.options(options)
    scores = model.sampler.option_logprobs(adapter, prompts, answers)
    return [[float(p) for p in row] for row in scores.double().softmax(-1)]


def _encode(model: LanguageModel, question: Question, room: int) -> list[int] | None:
    """Encode a question; None if it and ``room`` more tokens do not fit the context."""
    try:
        ids = model.chat.prompt(*question)
    except UserError:  # the one thing that it refuses is a prompt beyond the context
        return None
    return ids if len(ids) + room <= model.chat.context else None


def _answered(shot: Item) -> Conversation:
    return answered(direct_question(shot), f" ({shot.letters[shot.right[0]]})")
