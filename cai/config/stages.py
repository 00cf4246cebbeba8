"""Schema of the stages: one dataclass per file in conf/stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from omegaconf import MISSING

from cai.config.choices import (
    Average,
    HelpfulSource,
    LabelKind,
    Method,
    PaperMode,
    Principles,
    Revisions,
    Start,
)
from cai.config.content import reads_file, reads_folder
from cai.config.nodes import ModelConfig
from cai.config.optimizer import OptimizerConfig
from cai.config.rules import (
    at_least,
    at_least_all,
    environment_variable,
    http_address,
    within,
)
from cai.errors import UserError


@dataclass
class HelpfulConfig:
    """The helpful-only assistant."""

    fine_tune: bool = MISSING
    examples: int = MISSING
    demonstrations: int = MISSING
    gate_prompts: int = MISSING
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        """Check ranges."""
        at_least_all(
            "helpful",
            0,
            examples=self.examples,
            demonstrations=self.demonstrations,
            gate_prompts=self.gate_prompts,
        )


@dataclass
class GuardsConfig:
    """Which faults of a generated text make a row unfit for training."""

    role_confusion: bool = MISSING
    echo: bool = MISSING
    markers: bool = MISSING
    truncation: bool = MISSING
    near_duplicate: bool = MISSING
    no_change: bool = MISSING


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
class SFTConfig:
    """SL-CAI: fine-tuning on revisions and helpful answers."""

    start: Start = MISSING
    revisions: Revisions = MISSING
    up_to_round: int = MISSING
    helpful_per_revision: float = MISSING
    helpful_source: HelpfulSource = MISSING
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        """Check ranges."""
        at_least("sft.up_to_round", self.up_to_round, 1)
        at_least("sft.helpful_per_revision", self.helpful_per_revision, 0)
        if self.start is Start.sft:
            raise UserError("sft.start=sft is itself: use base or helpful")


@dataclass
class EndpointConfig:
    """A feedback model behind an OpenAI-compatible server."""

    node: ClassVar[str] = "feedback.endpoint"

    url: str | None = MISSING
    model: str | None = MISSING
    key_variable: str | None = MISSING
    timeout: float = MISSING
    retries: int = MISSING
    per_second: float = MISSING
    votes: int = MISSING

    def __post_init__(self) -> None:
        """Check ranges, and that no key is where it would be written to disk."""
        at_least(f"{self.node}.retries", self.retries, 0)
        at_least(f"{self.node}.votes", self.votes, 1)
        within(f"{self.node}.timeout", self.timeout, 0.1, 3600)
        within(f"{self.node}.per_second", self.per_second, 0.01, 1000)
        if isinstance(self.key_variable, str) and self.key_variable != MISSING:
            environment_variable(f"{self.node}.key_variable", self.key_variable)
        if isinstance(self.url, str) and self.url != MISSING:
            http_address(f"{self.node}.url", self.url)
            if not self.model:
                raise UserError(
                    f"{self.node}.model is null: give the name by which "
                    f"{self.node}.url={self.url} knows its model"
                )

    @property
    def used(self) -> bool:
        """Whether the feedback model is this one instead of a local one."""
        return self.url is not None and self.url != MISSING


@dataclass
class JudgeEndpointConfig(EndpointConfig):
    """The same as a judge of the evaluation."""

    node: ClassVar[str] = "evaluate.judge_endpoint"


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
    chains: int = MISSING
    label: LabelKind = MISSING
    clamp: list[float] = MISSING
    calibrate: bool = MISSING
    temperature: float = MISSING
    reply_tokens: int = MISSING
    chain_tokens: int = MISSING
    batch_size: int = MISSING
    endpoint: EndpointConfig = field(default_factory=EndpointConfig)

    def __post_init__(self) -> None:
        """Check ranges."""
        at_least_all(
            "feedback",
            1,
            prompts=self.prompts,
            chains=self.chains,
            reply_tokens=self.reply_tokens,
            chain_tokens=self.chain_tokens,
            batch_size=self.batch_size,
        )
        at_least("feedback.few_shots", self.few_shots, 0)
        if isinstance(self.labeller, ModelConfig) and self.endpoint.used:
            raise UserError(
                f"feedback.labeller={self.labeller.name} and feedback.endpoint.url="
                f"{self.endpoint.url} both label: give one of them"
            )
        within("feedback.temperature", self.temperature, 0.0, 5.0)
        if isinstance(self.clamp, list) and not (
            len(self.clamp) == 2 and 0 <= self.clamp[0] <= 0.5 <= self.clamp[1] <= 1
        ):
            raise UserError(
                f"feedback.clamp={self.clamp} must be [low, high] with 0 <= low <= 0.5 <= high <= 1"
            )


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
class PMConfig:
    """The preference model and its twin."""

    base: ModelConfig | None = MISSING
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    helpful_pairs: int = MISSING
    label_smoothing: float = MISSING
    centring: float = MISSING
    holdout_twin: bool = MISSING
    members: int = MISSING
    lower_bound: float = MISSING
    pretrain: str | None = reads_file()
    full_finetuning: bool = MISSING
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        """Check ranges."""
        if isinstance(self.label_smoothing, float) and not 0 <= self.label_smoothing < 0.5:
            raise UserError(
                f"pm.label_smoothing={self.label_smoothing} is out of range: it is the share of "
                "flipped labels and must be in [0, 0.5)"
            )
        at_least_all("pm", 0, centring=self.centring, lower_bound=self.lower_bound)
        at_least_all("pm", 1, helpful_pairs=self.helpful_pairs, members=self.members)


@dataclass
class EvaluateConfig:
    """The comparison of the systems."""

    prompts: int = MISSING
    samples: int = MISSING
    best_of: int = MISSING
    snapshots: int = MISSING
    temperature: float = MISSING
    reply_tokens: int = MISSING
    batch_size: int = MISSING
    bootstrap: int = MISSING
    constitution_judge: bool = MISSING
    judge_endpoint: JudgeEndpointConfig = field(default_factory=JudgeEndpointConfig)
    human_choices: str | None = reads_file()
    ratings: str | None = reads_file()
    ratings_rows: int | None = MISSING
    regression: OptimizerConfig = field(default_factory=OptimizerConfig)
    persona: bool = MISSING
    paper_tests: str | None = reads_folder()
    paper_rows: int | None = MISSING
    paper_modes: list[PaperMode] = MISSING
    paper_chain_tokens: int = MISSING

    def __post_init__(self) -> None:
        """Check ranges."""
        at_least_all(
            "evaluate",
            1,
            prompts=self.prompts,
            samples=self.samples,
            best_of=self.best_of,
            reply_tokens=self.reply_tokens,
            batch_size=self.batch_size,
            bootstrap=self.bootstrap,
            ratings_rows=self.ratings_rows,
            paper_rows=self.paper_rows,
            paper_chain_tokens=self.paper_chain_tokens,
        )
        at_least_all("evaluate", 0, snapshots=self.snapshots)
        within("evaluate.temperature", self.temperature, 0.0, 5.0)
        if isinstance(self.paper_modes, list) and not self.paper_modes:
            modes = ", ".join(mode.value for mode in PaperMode)
            raise UserError(f"evaluate.paper_modes=[] asks nothing: name one or more of {modes}")
