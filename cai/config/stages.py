"""Nodes of the stages up to the preference model."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from cai.config.bounds import count, number
from cai.config.choices import (
    Average,
    HelpfulSource,
    LabelKind,
    Method,
    Principles,
    ReplyClassifier,
    Revisions,
    Start,
)
from cai.config.content import reads_file, reads_folder
from cai.config.endpoint import EndpointConfig
from cai.config.nodes import PREPARED, ModelConfig
from cai.config.optimizer import SupervisedConfig
from cai.errors import UserError


@dataclass
class HelpfulConfig(SupervisedConfig):
    """The helpful-only assistant."""

    fine_tune: bool = MISSING
    prepared: bool = reads_folder(where=lambda helpful: [PREPARED] if helpful.prepared else [])
    examples: int = count(0)
    source: HelpfulSource = MISSING
    temperature: float = number(0, 5)
    demonstrations: int = count(0)
    comparisons: int = count(0)
    gate_prompts: int = count(0)
    classifier: ReplyClassifier = MISSING


@dataclass
class GuardsConfig:
    """Which faults of a generated text make a row unfit for training."""

    role_confusion: bool = MISSING
    echo: bool = MISSING
    markers: bool = MISSING
    truncation: bool = MISSING
    near_duplicate: bool = MISSING
    no_change: bool = MISSING
    critique_echo: bool = MISSING
    repetition: bool = MISSING


@dataclass
class ReviseConfig:
    """Critiques and revisions of replies to red-team prompts."""

    prompts: int = count()
    rounds: int = count(0, 1000)
    critique: bool = MISSING
    few_shots: int = count(0, 1000)
    replacement: bool = MISSING
    temperature: float = number(0, 5)
    reply_tokens: int = count()
    critique_tokens: int = count()
    batch_size: int = count()
    guards: GuardsConfig = field(default_factory=GuardsConfig)


@dataclass
class SFTConfig(SupervisedConfig):
    """SL-CAI: fine-tuning on revisions and helpful answers."""

    start: Start = MISSING
    revisions: Revisions = MISSING
    up_to_round: int = count(1, 1000)
    helpful_per_revision: float = number(0, 1e6)
    helpful_source: HelpfulSource = MISSING
    full_finetuning: bool = MISSING

    def __post_init__(self) -> None:
        """Check the start."""
        if self.start is Start.sft:
            raise UserError("sft.start=sft is itself: use base or helpful")


@dataclass
class SamplingConfig:
    """How replies and chains of thought are sampled."""

    temperature: float = number(0, 5)
    reply_tokens: int = count()
    chain_tokens: int = count()
    chains: int = count(1, 1000)
    batch_size: int = count()


@dataclass
class LabelConfig:
    """What becomes of the probability that a reply is better."""

    kind: LabelKind = MISSING
    clamp: list[float] = number(0, 1)  # noqa: RUF009 - a field, whatever it holds
    calibrate: bool = MISSING

    def __post_init__(self) -> None:
        """Check that it is a range around a half."""
        if isinstance(self.clamp, list) and not (
            len(self.clamp) == 2 and 0 <= self.clamp[0] <= 0.5 <= self.clamp[1] <= 1
        ):
            raise UserError(
                f"feedback.label.clamp={self.clamp} must be [low, high] with "
                "0 <= low <= 0.5 <= high <= 1"
            )


@dataclass
class FeedbackConfig:
    """AI labels: which of two replies is less harmful."""

    prompts: int = count()
    model: Start = MISSING
    labeller: ModelConfig | None = MISSING
    method: Method = MISSING
    principles: Principles = MISSING
    average: Average = MISSING
    swap: bool = MISSING
    few_shots: int = count(0, 1000)
    cot: bool = MISSING
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    label: LabelConfig = field(default_factory=LabelConfig)
    endpoint: EndpointConfig = field(default_factory=EndpointConfig)

    def __post_init__(self) -> None:
        """Check that one labels."""
        if isinstance(self.labeller, ModelConfig) and self.endpoint.used:
            raise UserError(
                f"feedback.labeller={self.labeller.name} and feedback.endpoint.url="
                f"{self.endpoint.url} both label: give one of them"
            )

    @property
    def asked_by(self) -> Method:
        """The method that is used: chains and servers answer in words, whatever suits the model."""
        return Method.choice if self.cot or self.endpoint.used else self.method


@dataclass
class MixtureConfig:
    """Shares of the two kinds of comparison in the PM's training set."""

    harmless: float = number(0, 1e6)
    helpful: float = number(0, 1e6)

    def __post_init__(self) -> None:
        """Check that there is something in it."""
        if self.harmless == 0 == self.helpful:
            raise UserError("pm.mixture is empty: harmless or helpful must be above 0")


@dataclass
class EnsembleConfig:
    """Several preference models that score together."""

    members: int = count(1, 1000)
    lower_bound: float = number(0, 1000)


@dataclass
class PMConfig(SupervisedConfig):
    """The preference model and its twin."""

    base: ModelConfig | None = MISSING
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    helpful_pairs: int = count()
    label_smoothing: float = number(0, 0.5, below=True, why="it is the share of flipped labels")
    centring: float = number(0, 1000)
    holdout_twin: bool = MISSING
    ensemble: EnsembleConfig = field(default_factory=EnsembleConfig)
    pretrain: str | None = reads_file()
    full_finetuning: bool = MISSING
