"""The schema of conf/: one dataclass per node, with types and rules; the values live in conf/.

Every field is MISSING here, so a value has one home. A rule that a type can't express stands in
``__post_init__`` and says which key is wrong, what it was and what is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, make_dataclass
from typing import TypeVar, cast

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
    TooLong,
    TrackingMode,
)
from cai.config.hardware import HardwareConfig, Precision, Profiler, Strategy, TrainerConfig
from cai.config.nodes import (
    AdapterConfig,
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
from cai.config.sampler import Engine, SamplerConfig
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
from cai.errors import UserError

__all__ = [
    "Accelerator",
    "AdapterConfig",
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
    "Engine",
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
    "SamplerConfig",
    "ScaleConfig",
    "Schedule",
    "Start",
    "Strategy",
    "TooLong",
    "TrackingConfig",
    "TrackingMode",
    "TrainerConfig",
    "schema_of",
]

Node = TypeVar("Node")


@dataclass
class Config:
    """The nodes that all stages share.

    What conf/ composes is a ``Config`` with one more node for every stage: see ``schema_of``.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    constitution: ConstitutionConfig = field(default_factory=ConstitutionConfig)
    data: DataConfig = field(default_factory=DataConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    seed: int = MISSING
    stage: str = MISSING
    outputs: str = MISSING

    def node(self, name: str, kind: type[Node]) -> Node:
        """Return a node as the class that it has.

        Raises:
            UserError: If the composed stage does not bring it along, or it is something else.
        """
        value = getattr(self, name, MISSING)
        if not isinstance(value, kind) or (isinstance(value, str) and value == MISSING):
            raise UserError(
                f"stage={self.stage} needs the node {name!r}: name it in the defaults of "
                f"conf/stage/{self.stage}.yaml"
            )
        return value


def schema_of(nodes: Mapping[str, type]) -> type[Config]:
    """Return the schema of conf/ with a node for each stage.

    Args:
        nodes: The class of each stage's node by its name.
    """
    more = [(name, kind, field(default=MISSING)) for name, kind in nodes.items()]
    return cast(type[Config], make_dataclass("Schema", more, bases=(Config,)))
