"""Nodes of the stages up to the preference model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from omegaconf import MISSING

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
from cai.config.rules import at_least, at_least_all, within
from cai.errors import UserError


@dataclass
class HelpfulConfig(SupervisedConfig):
    """The helpful-only assistant."""

    node: ClassVar[str] = "helpful"

    fine_tune: bool = MISSING
    prepared: bool = reads_folder(where=lambda helpful: [PREPARED] if helpful.prepared else [])
    examples: int = MISSING
    source: HelpfulSource = MISSING
    temperature: float = MISSING
    demonstrations: int = MISSING
    comparisons: int = MISSING
    gate_prompts: int = MISSING
    classifier: ReplyClassifier = MISSING

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        at_least_all(
            "helpful",
            0,
            examples=self.examples,
            demonstrations=self.demonstrations,
            comparisons=self.comparisons,
            gate_prompts=self.gate_prompts,
        )
        within("helpful.temperature", self.temperature, 0.0, 5.0)


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


@dataclass
class ReviseConfig:
    """Critiques and revisions of replies to red-team prompts."""

    prompts: int = MISSING
    rounds: int = MISSING
    critique: bool = MISSING
    few_shots: int = MISSING
    replacement: bool = MISSING
    temperature: float = MISSING
    reply_tokens: int = MISSING
    critique_tokens: int = MISSING
    batch_size: int = MISSING
    guards: GuardsConfig = field(default_factory=GuardsConfig)

    def __post_init__(self) -> None:
        """Check ranges."""
        at_least_all("revise", 0, rounds=self.rounds, few_shots=self.few_shots)
        at_least_all(
            "revise",
            1,
            prompts=self.prompts,
            reply_tokens=self.reply_tokens,
            critique_tokens=self.critique_tokens,
            batch_size=self.batch_size,
        )
        within("revise.temperature", self.temperature, 0.0, 5.0)


@dataclass
class SFTConfig(SupervisedConfig):
    """SL-CAI: fine-tuning on revisions and helpful answers."""

    node: ClassVar[str] = "sft"

    start: Start = MISSING
    revisions: Revisions = MISSING
    up_to_round: int = MISSING
    helpful_per_revision: float = MISSING
    helpful_source: HelpfulSource = MISSING
    full_finetuning: bool = MISSING

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        at_least("sft.up_to_round", self.up_to_round, 1)
        at_least("sft.helpful_per_revision", self.helpful_per_revision, 0)
        if self.start is Start.sft:
            raise UserError("sft.start=sft is itself: use base or helpful")


@dataclass
class SamplingConfig:
    """How replies and chains of thought are sampled."""

    temperature: float = MISSING
    reply_tokens: int = MISSING
    chain_tokens: int = MISSING
    chains: int = MISSING
    batch_size: int = MISSING

    def __post_init__(self) -> None:
        """Check ranges."""
        at_least_all(
            "feedback.sampling",
            1,
            chains=self.chains,
            reply_tokens=self.reply_tokens,
            chain_tokens=self.chain_tokens,
            batch_size=self.batch_size,
        )
        within("feedback.sampling.temperature", self.temperature, 0.0, 5.0)


@dataclass
class LabelConfig:
    """What becomes of the probability that a reply is better."""

    kind: LabelKind = MISSING
    clamp: list[float] = MISSING
    calibrate: bool = MISSING

    def __post_init__(self) -> None:
        """Check ranges."""
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

    prompts: int = MISSING
    model: Start = MISSING
    labeller: ModelConfig | None = MISSING
    method: Method = MISSING
    principles: Principles = MISSING
    average: Average = MISSING
    swap: bool = MISSING
    few_shots: int = MISSING
    cot: bool = MISSING
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    label: LabelConfig = field(default_factory=LabelConfig)
    endpoint: EndpointConfig = field(default_factory=EndpointConfig)

    def __post_init__(self) -> None:
        """Check ranges."""
        at_least_all("feedback", 1, prompts=self.prompts)
        at_least("feedback.few_shots", self.few_shots, 0)
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

    harmless: float = MISSING
    helpful: float = MISSING

    def __post_init__(self) -> None:
        """Check ranges."""
        at_least_all("pm.mixture", 0, harmless=self.harmless, helpful=self.helpful)
        if self.harmless == 0 == self.helpful:
            raise UserError("pm.mixture is empty: harmless or helpful must be above 0")


@dataclass
class EnsembleConfig:
    """Several preference models that score together."""

    members: int = MISSING
    lower_bound: float = MISSING

    def __post_init__(self) -> None:
        """Check ranges."""
        at_least("pm.ensemble.members", self.members, 1)
        at_least("pm.ensemble.lower_bound", self.lower_bound, 0)


@dataclass
class PMConfig(SupervisedConfig):
    """The preference model and its twin."""

    node: ClassVar[str] = "pm"

    base: ModelConfig | None = MISSING
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    helpful_pairs: int = MISSING
    label_smoothing: float = MISSING
    centring: float = MISSING
    holdout_twin: bool = MISSING
    ensemble: EnsembleConfig = field(default_factory=EnsembleConfig)
    pretrain: str | None = reads_file()
    full_finetuning: bool = MISSING

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        if isinstance(self.label_smoothing, float) and not 0 <= self.label_smoothing < 0.5:
            raise UserError(
                f"pm.label_smoothing={self.label_smoothing} is out of range: it is the share of "
                "flipped labels and must be in [0, 0.5)"
            )
        at_least("pm.centring", self.centring, 0)
        at_least("pm.helpful_pairs", self.helpful_pairs, 1)
