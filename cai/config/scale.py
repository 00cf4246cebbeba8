"""One dial for the size of everything: the stages refer to it, each to its own part."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from cai.config.bounds import count, number
from cai.config.choices import ReplyClassifier, Schedule


@dataclass
class HelpfulScale:
    """How much the helpful assistant is tuned on."""

    examples: int = count(0)
    demonstrations: int = count(0)
    comparisons: int = count(0)


@dataclass
class ReviseScale:
    """How many prompts are revised, and how often."""

    prompts: int = count()
    rounds: int = count(0, 1000)


@dataclass
class SFTScale:
    """How long and fast SL-CAI is trained, and on what."""

    epochs: float = number(0, 1000)
    batch_size: int = count()
    lr: float = number(0, 1)
    schedule: Schedule = MISSING
    helpful_per_revision: float = number(0, 1000)


@dataclass
class FeedbackScale:
    """How many pairs of replies are labelled."""

    prompts: int = count()


@dataclass
class PMScale:
    """How many human comparisons the preference model learns from, and how fast."""

    helpful_pairs: int = count()
    lr: float = number(0, 1)


@dataclass
class RLScale:
    """How long the policy is trained, and on what."""

    iterations: int = count()
    rollouts: int = count()
    red_team_share: float = number(0, 1)


@dataclass
class JudgeScale:
    """How many comparisons the judge learns from; None: all."""

    pairs: int | None = count()


@dataclass
class EvaluateScale:
    """How many held-out prompts of each kind are asked, and how replies are read."""

    prompts: int = count()
    classifier: ReplyClassifier = MISSING


@dataclass
class ScaleConfig:
    """The sizes of all stages."""

    name: str = MISSING
    reply_tokens: int = count()
    critique_tokens: int = count()
    exam: int | None = count()
    helpful: HelpfulScale = field(default_factory=HelpfulScale)
    revise: ReviseScale = field(default_factory=ReviseScale)
    sft: SFTScale = field(default_factory=SFTScale)
    feedback: FeedbackScale = field(default_factory=FeedbackScale)
    pm: PMScale = field(default_factory=PMScale)
    rl: RLScale = field(default_factory=RLScale)
    judge: JudgeScale = field(default_factory=JudgeScale)
    evaluate: EvaluateScale = field(default_factory=EvaluateScale)
