"""The supervised phase: the helpful assistant, revisions, SL-CAI."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cai import results
from cai.config import (
    ConstitutionConfig,
    DataConfig,
    HelpfulConfig,
    ModelConfig,
    ReviseConfig,
    SFTConfig,
)
from cai.jsonl import Document, Rows
from cai.pipeline.stage import Result


class Trained(Result):
    """A result that holds one assistant, in a model folder of its own."""

    @property
    def model(self) -> Path:
        """The folder of the assistant; without an adapter in it, the bare base."""
        return self.path / "model"

    @property
    def history(self) -> Rows[results.common.Numbers]:
        """The training, step by step."""
        return Rows(self.path / "history.jsonl", results.common.Numbers)


# helpful: the assistant that the method starts from


@dataclass(frozen=True)
class HelpfulSettings:
    """What the helpful stage reads: nothing that differs between arms of an experiment."""

    model: ModelConfig
    data: DataConfig
    helpful: HelpfulConfig


@dataclass(frozen=True)
class NoInputs:
    """A stage that reads no result of another."""


class HelpfulAssistant(Trained):
    """The helpful-only assistant and how ready it is to do harm."""

    @property
    def answers(self) -> Rows[results.revisions.HelpfulAnswer]:
        """Answers of the bare model that it learnt from, where it learns from these."""
        return Rows(self.path / "answers.jsonl", results.revisions.HelpfulAnswer)

    @property
    def gate(self) -> Document[results.revisions.Gate]:
        """How often it refuses."""
        return Document(self.path / "gate.json", results.revisions.Gate)

    @property
    def gate_replies(self) -> Rows[results.revisions.GateReply]:
        """What it said."""
        return Rows(self.path / "gate.jsonl", results.revisions.GateReply)


# revise: critiques and revisions


@dataclass(frozen=True)
class ReviseSettings:
    """What the revise stage reads."""

    model: ModelConfig
    constitution: ConstitutionConfig
    data: DataConfig
    revise: ReviseConfig
    seed: int


@dataclass(frozen=True)
class ReviseInputs:
    """Results that the revise stage reads."""

    helpful: HelpfulAssistant


class Revisions(Result):
    """Prompts with the first reply and its revisions."""

    @property
    def sampled(self) -> Rows[results.revisions.Revision]:
        """The same before near-duplicates are marked; gone when the stage has finished."""
        return Rows(self.path / "sampled.jsonl", results.revisions.Revision)

    @property
    def rows(self) -> Rows[results.revisions.Revision]:
        """A row per prompt, with every text, principle, seed and fault."""
        return Rows(self.path / "revisions.jsonl", results.revisions.Revision)

    @property
    def yields(self) -> Document[list[results.revisions.Yield]]:
        """What was left out, and why."""
        return Document(self.path / "yield.json", list[results.revisions.Yield])


# sft: SL-CAI


@dataclass(frozen=True)
class SFTSettings:
    """What the sft stage reads."""

    model: ModelConfig
    data: DataConfig
    sft: SFTConfig
    seed: int

    def __post_init__(self) -> None:
        """Check that what should be trained can be."""
        if self.sft.full_finetuning:
            self.model.check_trainable("sft.full_finetuning")


@dataclass(frozen=True)
class SFTInputs:
    """Results that the sft stage reads."""

    helpful: HelpfulAssistant
    revise: Revisions


class SLCAI(Trained):
    """The assistant that was fine-tuned on revisions."""

    @property
    def helpful_answers(self) -> Rows[results.revisions.HelpfulAnswer]:
        """Answers of the helpful assistant, where it answers the helpful prompts."""
        return Rows(self.path / "helpful.jsonl", results.revisions.HelpfulAnswer)

    @property
    def metrics(self) -> Document[results.revisions.SFTMetrics]:
        """What it was trained on, and its held-out loss."""
        return Document(self.path / "metrics.json", results.revisions.SFTMetrics)
