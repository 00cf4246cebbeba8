"""The feedback phase: AI labels and preference models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cai import results
from cai.config import (
    ConstitutionConfig,
    DataConfig,
    FeedbackConfig,
    ModelConfig,
    PMConfig,
    RecipeConfig,
)
from cai.contracts.assistants import SLCAI, HelpfulAssistant
from cai.jsonl import Document, Rows
from cai.pipeline.stage import Result

# feedback: AI labels


@dataclass(frozen=True)
class FeedbackSettings:
    """What the feedback stage reads."""

    model: ModelConfig
    constitution: ConstitutionConfig
    data: DataConfig
    feedback: FeedbackConfig
    seed: int


@dataclass(frozen=True)
class FeedbackInputs:
    """Results that the feedback stage reads."""

    helpful: HelpfulAssistant
    sft: SLCAI


class Labels(Result):
    """Pairs of replies with labels."""

    @property
    def pairs(self) -> Rows[results.labels.ReplyPair]:
        """What was sampled."""
        return Rows(self.path / "pairs.jsonl", results.labels.ReplyPair)

    @property
    def labels(self) -> Rows[results.labels.LabelledPair]:
        """Every label and how it came about."""
        return Rows(self.path / "labels.jsonl", results.labels.LabelledPair)

    @property
    def comparisons(self) -> Rows[results.labels.PreferenceRow]:
        """The same in the columns that preference trainers read."""
        return Rows(self.path / "comparisons.jsonl", results.labels.PreferenceRow)

    @property
    def report(self) -> Document[results.labels.LabelReport]:
        """How far the labels can be trusted."""
        return Document(self.path / "report.json", results.labels.LabelReport)


# pm: preference models


@dataclass(frozen=True)
class PMStageSettings:
    """What the pm stage reads."""

    model: ModelConfig
    data: DataConfig
    recipe: RecipeConfig
    pm: PMConfig
    seed: int

    def __post_init__(self) -> None:
        """Check that what should be trained can be."""
        if self.pm.full_finetuning:
            self.base.check_trainable("pm.full_finetuning")

    @property
    def base(self) -> ModelConfig:
        """What the PM starts from."""
        return self.pm.base or self.model


@dataclass(frozen=True)
class PMInputs:
    """Results that the pm stage reads; labels only where the recipe wants AI labels."""

    helpful: HelpfulAssistant
    feedback: Labels | None


@dataclass(frozen=True)
class PMFolder:
    """One preference model: weights, card, and what it was trained on and knows."""

    path: Path

    @property
    def comparisons(self) -> Rows[results.labels.PreferenceRow]:
        """What it was trained on; DPO learns from the same."""
        return Rows(self.path / "comparisons.jsonl", results.labels.PreferenceRow)

    @property
    def history(self) -> Rows[results.common.Numbers]:
        """The training, step by step."""
        return Rows(self.path / "history.jsonl", results.common.Numbers)

    @property
    def metrics(self) -> Document[results.labels.PMMetrics]:
        """What it knows."""
        return Document(self.path / "metrics.json", results.labels.PMMetrics)

    @property
    def card(self) -> Path:
        """The model card, written last."""
        return self.path / "README.md"

    @property
    def pretrained(self) -> PMFolder:
        """The same model as it was before its own comparisons."""
        return PMFolder(self.path / "pretrained")


class PreferenceModels(Result):
    """The PM and its twin, each with further members of its ensemble."""

    def named(self, name: str) -> PMFolder:
        """Return the folder of ``model``, ``twin``, or a further member such as ``model-1``."""
        return PMFolder(self.path / name)

    @property
    def settings(self) -> Document[results.labels.PMSettings]:
        """What scoring needs to know besides the weights."""
        return Document(self.path / "settings.json", results.labels.PMSettings)
