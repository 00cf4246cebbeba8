"""The schema of conf/: one dataclass per node, with types and rules; the values live in conf/.

Every field is MISSING here, so a value has one home. A rule that a type can't express stands in
``__post_init__`` and says which key is wrong, what it was and what is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, make_dataclass
from typing import TypeVar, cast

from omegaconf import MISSING

from cai.config.bounds import SEEDS, check_bounds, number
from cai.config.choices import (
    Accelerator,
    Average,
    BadRows,
    CriticStart,
    DataSource,
    Dialect,
    Dtype,
    Guard,
    HelpfulSource,
    JudgeMethod,
    JudgeSource,
    KLControl,
    LabelKind,
    Labels,
    Method,
    ModelSource,
    OptimizerKind,
    Outcome,
    PaperMode,
    Policy,
    Principles,
    Quantization,
    ReplyClassifier,
    Revisions,
    RowFormat,
    Schedule,
    Start,
    TooLong,
    TrackingMode,
)
from cai.config.data import ColumnsConfig, FileConfig, FilesConfig
from cai.config.endpoint import EndpointConfig
from cai.config.evaluate import (
    BaselinesConfig,
    EvaluateConfig,
    HarmfulnessConfig,
    OpinionsConfig,
    PaperTestsConfig,
)
from cai.config.hardware import HardwareConfig, Precision, Profiler, Strategy, TrainerConfig
from cai.config.judge import (
    JudgeConfig,
    JudgeEndpointConfig,
    JudgeModelsConfig,
    JudgeTrainingConfig,
)
from cai.config.nodes import (
    AdapterConfig,
    ComparisonPrinciple,
    ConstitutionConfig,
    DataConfig,
    ExperimentConfig,
    MethodConfig,
    ModelConfig,
    RecipeConfig,
    RevisionPrinciple,
    TrackingConfig,
)
from cai.config.optimizer import OptimizerConfig, SupervisedConfig
from cai.config.rl import (
    AdvantageConfig,
    CriticConfig,
    DPOConfig,
    KLConfig,
    PPOConfig,
    RewardConfig,
    RLConfig,
    RolloutConfig,
    WatchConfig,
)
from cai.config.rules import check_addresses
from cai.config.sampler import Engine, SamplerConfig
from cai.config.scale import ScaleConfig
from cai.config.stages import (
    EnsembleConfig,
    FeedbackConfig,
    GuardsConfig,
    HelpfulConfig,
    LabelConfig,
    MixtureConfig,
    PMConfig,
    ReviseConfig,
    SamplingConfig,
    SFTConfig,
)
from cai.errors import UserError

__all__ = [
    "Accelerator",
    "AdapterConfig",
    "AdvantageConfig",
    "Average",
    "BadRows",
    "BaselinesConfig",
    "ColumnsConfig",
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
    "EnsembleConfig",
    "EvaluateConfig",
    "ExperimentConfig",
    "FeedbackConfig",
    "FileConfig",
    "FilesConfig",
    "Guard",
    "GuardsConfig",
    "HardwareConfig",
    "HarmfulnessConfig",
    "HelpfulConfig",
    "HelpfulSource",
    "JudgeConfig",
    "JudgeEndpointConfig",
    "JudgeMethod",
    "JudgeModelsConfig",
    "JudgeSource",
    "JudgeTrainingConfig",
    "KLConfig",
    "KLControl",
    "LabelConfig",
    "LabelKind",
    "Labels",
    "Method",
    "MethodConfig",
    "MixtureConfig",
    "ModelConfig",
    "ModelSource",
    "OpinionsConfig",
    "OptimizerConfig",
    "OptimizerKind",
    "Outcome",
    "PMConfig",
    "PPOConfig",
    "PaperMode",
    "PaperTestsConfig",
    "Policy",
    "Precision",
    "Principles",
    "Profiler",
    "Quantization",
    "RLConfig",
    "RecipeConfig",
    "ReplyClassifier",
    "ReviseConfig",
    "RevisionPrinciple",
    "Revisions",
    "RewardConfig",
    "RolloutConfig",
    "RowFormat",
    "SFTConfig",
    "SamplerConfig",
    "SamplingConfig",
    "ScaleConfig",
    "Schedule",
    "Start",
    "Strategy",
    "SupervisedConfig",
    "TooLong",
    "TrackingConfig",
    "TrackingMode",
    "TrainerConfig",
    "WatchConfig",
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
    experiment: ExperimentConfig = field(default_factory=ExperimentConfig)
    seed: int = number(-SEEDS, SEEDS)
    stage: str = MISSING
    outputs: str = MISSING
    dry_run: bool = MISSING

    def __post_init__(self) -> None:
        """Check all numbers and texts, then what concerns several nodes."""
        check_bounds(self)
        check_addresses(self)
        if not self.outputs.strip():
            raise UserError("outputs is empty: set it to a folder that you may write")
        for name in ("sft", "pm", "rl"):
            if getattr(getattr(self, name, None), "full_finetuning", False) is True:
                self._check_whole(name)
        sft, rl = getattr(self, "sft", None), getattr(self, "rl", None)
        if not (isinstance(sft, SFTConfig) and isinstance(rl, RLConfig)):
            return
        if self.recipe.start is Start.sft and sft.full_finetuning and not rl.full_finetuning:
            raise UserError(
                "sft.full_finetuning=true leaves no adapter that RL could go on with: set "
                "rl.full_finetuning=true"
            )

    def _check_whole(self, name: str) -> None:
        if self.hardware.strategy is Strategy.shard:
            raise UserError(
                f"hardware.strategy=shard keeps the base frozen: set {name}.full_finetuning="
                "false or hardware.strategy=ddp"
            )
        if self.sampler.engine is Engine.vllm and name != "pm":  # which is not sampled from
            raise UserError(
                f"sampler=vllm is handed adapters alone: set {name}.full_finetuning=false or "
                "sampler=local"
            )

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
