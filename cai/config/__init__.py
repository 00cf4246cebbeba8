"""The schema of conf/: one dataclass per node, with types and rules; the values live in conf/.

Every field is MISSING here, so a value has one home. A rule that a type can't express stands in
``__post_init__`` and says which key is wrong, what it was and what is allowed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from cai.config.choices import (
    Accelerator,
    Average,
    CriticStart,
    DataSource,
    Dialect,
    Dtype,
    Guard,
    HelpfulSource,
    KLControl,
    LabelKind,
    Labels,
    Method,
    ModelSource,
    OptimizerKind,
    PaperMode,
    Policy,
    Principles,
    Quantization,
    Revisions,
    Schedule,
    Start,
    TrackingMode,
)
from cai.config.hardware import HardwareConfig, Precision, Profiler, Strategy, TrainerConfig
from cai.config.nodes import (
    ComparisonPrinciple,
    ConstitutionConfig,
    DataConfig,
    ModelConfig,
    RecipeConfig,
    RevisionPrinciple,
    ScaleConfig,
    TrackingConfig,
)
from cai.config.optimizer import OptimizerConfig
from cai.config.rl import CriticConfig, DPOConfig, KLConfig, RLConfig
from cai.config.stages import (
    EndpointConfig,
    EvaluateConfig,
    FeedbackConfig,
    GuardsConfig,
    HelpfulConfig,
    JudgeEndpointConfig,
    MixtureConfig,
    PMConfig,
    ReviseConfig,
    SFTConfig,
)

__all__ = [
    "Accelerator",
    "Average",
    "ComparisonPrinciple",
    "Config",
    "ConstitutionConfig",
    "CriticConfig",
    "CriticStart",
    "DPOConfig",
    "DataConfig",
    "DataSource",
    "Dialect",
    "Dtype",
    "EndpointConfig",
    "EvaluateConfig",
    "FeedbackConfig",
    "Guard",
    "GuardsConfig",
    "HardwareConfig",
    "HelpfulConfig",
    "HelpfulSource",
    "JudgeEndpointConfig",
    "KLConfig",
    "KLControl",
    "LabelKind",
    "Labels",
    "Method",
    "MixtureConfig",
    "ModelConfig",
    "ModelSource",
    "OptimizerConfig",
    "OptimizerKind",
    "PMConfig",
    "PaperMode",
    "Policy",
    "Precision",
    "Principles",
    "Profiler",
    "Quantization",
    "RLConfig",
    "RecipeConfig",
    "ReviseConfig",
    "RevisionPrinciple",
    "Revisions",
    "SFTConfig",
    "ScaleConfig",
    "Schedule",
    "Start",
    "Strategy",
    "TrackingConfig",
    "TrackingMode",
    "TrainerConfig",
]


@dataclass
class Config:
    """Everything that conf/ composes."""

    model: ModelConfig = field(default_factory=ModelConfig)
    constitution: ConstitutionConfig = field(default_factory=ConstitutionConfig)
    data: DataConfig = field(default_factory=DataConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    seed: int = MISSING
    stage: str = MISSING
    outputs: str = MISSING
    helpful: HelpfulConfig | None = MISSING
    revise: ReviseConfig | None = MISSING
    sft: SFTConfig | None = MISSING
    feedback: FeedbackConfig | None = MISSING
    pm: PMConfig | None = MISSING
    rl: RLConfig | None = MISSING
    evaluate: EvaluateConfig | None = MISSING
