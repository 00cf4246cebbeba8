"""Schema of the config groups that every stage shares."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from cai.config.bounds import SEEDS, count, number
from cai.config.choices import (
    BadRows,
    DataSource,
    Dialect,
    Dtype,
    HelpfulSource,
    Labels,
    Method,
    ModelSource,
    Outcome,
    Policy,
    Quantization,
    Start,
    TooLong,
    TrackingMode,
)
from cai.config.content import reads_folder
from cai.config.data import NO_FILE, FilesConfig
from cai.errors import UserError

BUILTIN = Path(__file__).resolve().parents[1] / "data" / "builtin"
"""The data that come with the package: whatever is chosen, some sets are from here."""
PREPARED = Path(__file__).resolve().parents[1] / "lm" / "helpful"
"""The helpful assistant that comes with the package, an adapter of SmolLM2."""


@dataclass
class AdapterConfig:
    """The LoRA adapters of every stage."""

    rank: int = count(1, 65_536)
    alpha: int = count(1, 1_000_000)
    targets: list[str] = MISSING

    def __post_init__(self) -> None:
        """Check that some layer is reached."""
        if isinstance(self.targets, list) and not self.targets:
            raise UserError(
                "model.lora.targets is empty: use [all-linear], or names of layers such as q_proj"
            )


@dataclass
class MethodConfig:
    """How the method treats a model of this kind; the stages refer to it."""

    helpful_tuning: bool = MISSING
    helpful_prepared: bool = MISSING
    answers: HelpfulSource = MISSING
    labels: Method = MISSING
    compares: bool = MISSING


@dataclass
class ModelConfig:
    """The base that every stage adapts."""

    name: str = MISSING
    source: ModelSource = MISSING
    path: str = reads_folder(where=lambda m: [m.path if m.source is ModelSource.folder else None])
    revision: str | None = MISSING
    dtype: Dtype = MISSING
    quantization: Quantization = MISSING
    dialect: Dialect = MISSING
    template_options: dict[str, Any] = MISSING
    temperature: float = number(0.01, 5)
    context: int = count()
    lora: AdapterConfig = field(default_factory=AdapterConfig)
    method: MethodConfig = field(default_factory=MethodConfig)

    def check_trainable(self, key: str) -> None:
        """Refuse to train all weights of a quantised base, which ``key`` asks for."""
        if self.quantization is not Quantization.none:
            raise UserError(
                f"model.quantization={self.quantization.value} has no weights that can be trained: "
                f"set {key}=false or model.quantization=none"
            )


@dataclass
class RevisionPrinciple:
    """A critique request and the revision request that belongs to it."""

    id: str = MISSING
    critique: str = MISSING
    revision: str = MISSING
    tradition: str | None = None


@dataclass
class ComparisonPrinciple:
    """A rule to choose between two replies, and its opposite."""

    id: str = MISSING
    text: str = MISSING
    inverse: str | None = None
    tradition: str | None = None


@dataclass
class ConstitutionConfig:
    """The principles of both phases."""

    name: str = MISSING
    description: str = MISSING
    n_principles: int | None = count(default=None)
    folder: str | None = reads_folder(None)
    revision: list[RevisionPrinciple] = MISSING
    comparison: list[ComparisonPrinciple] = MISSING

    def __post_init__(self) -> None:
        """Check that there is something to draw from."""
        for name in ("revision", "comparison"):
            principles = getattr(self, name)
            if not isinstance(principles, list):
                continue
            ids = [principle.id for principle in principles]
            if not ids and not self.folder:
                raise UserError(
                    f"constitution.{name} of {self.name!r} is empty: give it at least one principle"
                )
            if len(set(ids)) != len(ids):
                raise UserError(
                    f"constitution.{name} of {self.name!r} uses an id twice: ids must be unique"
                )


@dataclass
class DataConfig:
    """Prompts, demonstrations and comparisons."""

    source: DataSource = MISSING
    folder: str | None = reads_folder(where=lambda data: [data.folder, BUILTIN])
    revision: str | None = MISSING
    too_long: TooLong = MISSING
    bad_rows: BadRows = MISSING
    exam: int | None = count(default=None)
    seed: int = number(-SEEDS, SEEDS)
    files: FilesConfig | None = MISSING

    def __post_init__(self) -> None:
        """Check that what is given is read."""
        if self.source is not DataSource.files:
            if isinstance(self.files, FilesConfig):
                raise UserError("data.files is read where data.source is files: use data=files")
            return
        if self.files is None:
            raise UserError(NO_FILE)
        self.files.check()
        if self.folder or self.revision:
            raise UserError(
                "data.folder and data.revision are not read by data=files: give "
                "data.files.red_team.path, or hub and revision of a set"
            )


@dataclass
class ExperimentConfig:
    """What a sweep was made to find out."""

    question: str | None = MISSING
    outcome: Outcome = MISSING


@dataclass
class TrackingConfig:
    """Weights & Biases beside the files that are always written."""

    mode: TrackingMode = MISSING
    project: str = MISSING
    entity: str | None = MISSING
    group: str | None = MISSING
    arm: str | None = MISSING
    tags: list[str] = MISSING
    code: bool = MISSING
    system: bool = MISSING


@dataclass
class RecipeConfig:
    """Which labels train the preference model, and where RL starts."""

    name: str = MISSING
    start: Start = MISSING
    labels: Labels = MISSING
    cot: bool = MISSING
    policy: Policy = MISSING

    def __post_init__(self) -> None:
        """Check that RL starts at an assistant."""
        if self.start is Start.base:
            raise UserError("recipe.start=base is not a start for RL: use helpful or sft")
