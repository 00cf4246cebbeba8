"""Rows of policies and their evaluation: transcripts, replies, matches, tests, the summary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from cai.results.common import Absent, Messages, Metric, OptionalFloat, ReliabilityBin
from cai.results.revisions import Revision, Yield


@dataclass(frozen=True)
class Transcript:
    """A reply of the policy on its way, with the scores of the training PM and of its twin."""

    iteration: int
    prompt_id: str
    messages: Messages
    response: str
    score: float
    twin_score: float


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A system's reply to a held-out prompt.

    ``set`` is red_team, borderline or helpful; ``tokens`` are the ids that were sampled and
    ``logprob`` is what the system gave them, in nats, which only the stage itself needs.
    """

    system: str
    set: str
    prompt_id: str
    kind: str
    sample: int
    messages: Messages
    response: str
    tokens: Annotated[list[int] | None, Absent] = None
    logprob: OptionalFloat = None
    style: str
    refusal: bool
    evasive: bool
    boilerplate: bool
    judge_score: OptionalFloat = None
    pm_score: OptionalFloat = None
    twin_score: OptionalFloat = None
    harmfulness: OptionalFloat = None


@dataclass(frozen=True, kw_only=True)
class GreedyReply:
    """A system's likeliest reply, and how harmful it is."""

    system: str
    prompt_id: str
    messages: Messages
    response: str
    tokens: Annotated[list[int] | None, Absent] = None
    harmfulness: OptionalFloat = None


@dataclass(frozen=True)
class Match:
    """Two systems' replies to a prompt before a judge.

    Attributes:
        judge: Which kind: ``judge``, ``constitution`` or ``human``.
        by: Who in particular; matches by others are never put on one scale.
        axis: ``harmlessness`` or ``helpfulness``.
        prompt_id: What was asked.
        first: A system.
        second: Another one.
        outcome: The first one's share: 1 if it won, 0.5 for a tie.
        sample: Which of several replies to the prompt; in a chat, after how many others.
        annotator: The person who chose, where people did and gave a name.
    """

    judge: str
    by: str
    axis: str
    prompt_id: str
    first: str
    second: str
    outcome: float
    sample: Annotated[int, Field(exclude_if=lambda value: value == 0)] = 0
    annotator: Annotated[str | None, Absent] = None


@dataclass(frozen=True)
class Stance:
    """Probability of the first answer against the second, by who asks."""

    system: str
    id: str
    neutral: float
    favoured: float
    opposed: float


@dataclass(frozen=True)
class PaperAnswer:
    """An answer to a question of the paper's tests.

    Attributes:
        test: Which test.
        system: Who answered.
        mode: How it was asked.
        id: Of the question.
        chains: Probability of each option by chain; None for a chain without conclusion.
        scores: Of the dialogues, by a preference model.
        fits: Whether the question fits the context.
    """

    test: str
    system: str
    mode: str
    id: str
    chains: Annotated[list[list[float] | None] | None, Absent] = None
    scores: Annotated[list[float] | None, Absent] = None
    fits: bool = True


@dataclass(frozen=True)
class PaperFile:
    """A test's file and what was asked of it."""

    test: str
    file: str
    rows: int
    asked: int
    unreadable_rows: list[str]


@dataclass(frozen=True)
class PaperResult:
    """How well a system answered a test in one mode."""

    test: str
    system: str
    mode: str
    asked: int
    too_long: int
    unanswered: int
    n: int
    accuracy: Metric | None
    chance: float | None
    commonest: float | None
    ece: float | None
    reliability: list[ReliabilityBin]


@dataclass(frozen=True)
class PaperTests:
    """All tests and all results."""

    tests: list[PaperFile]
    results: list[PaperResult]


@dataclass(frozen=True)
class Prediction:
    """A predicted rating beside the given one."""

    predicted: float
    rating: float


@dataclass(frozen=True)
class HarmfulnessMetrics:
    """A regressor of harmfulness on held-out conversations."""

    mean: float
    trained_on: int
    held_out: int
    too_long: int
    error: Metric | None
    error_of_the_mean: float
    rank_correlation: Metric | None
    predictions: list[Prediction]


@dataclass(frozen=True)
class RoundScore:
    """Mean score of the reply after so many revisions, and how far it is above the first reply.

    ``change`` is the mean over prompts of the paired difference, with Student's interval.
    """

    round: int
    harmless: Metric
    change: Metric
    n: int


@dataclass(frozen=True)
class RevisionSummary:
    """What the report shows of the revisions."""

    yields: Annotated[list[Yield], Field(alias="yield")]
    scored_by: str
    by_round: list[RoundScore]
    transcripts: list[Revision]


@dataclass(frozen=True)
class StageRun:
    """A stage's result by name, and the seconds that it took where that is known."""

    stage: str
    artifact: str
    seconds: OptionalFloat = None


@dataclass(frozen=True)
class SystemSummary:
    """A system, the result that made it, and its metrics by name."""

    name: str
    model: str
    metrics: dict[str, Metric]


@dataclass(frozen=True)
class Summary:
    """An evaluation in short; ``settings`` are flat, with dotted keys."""

    recipe: str
    settings: dict[str, Any]
    departures: list[str]
    notes: list[str]
    stages: list[StageRun]
    systems: list[SystemSummary]
