"""The evaluation's node of the config."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from omegaconf import MISSING

from cai.config.choices import PaperMode, ReplyClassifier
from cai.config.content import reads_file, reads_folder
from cai.config.optimizer import SupervisedConfig
from cai.config.rules import at_least, at_least_all, within
from cai.errors import UserError


@dataclass
class BaselinesConfig:
    """Systems that are compared beside those of the recipe."""

    best_of: int = MISSING
    snapshots: int = MISSING

    def __post_init__(self) -> None:
        """Check ranges."""
        at_least("evaluate.baselines.best_of", self.best_of, 1)
        at_least("evaluate.baselines.snapshots", self.snapshots, 0)


@dataclass
class OpinionsConfig:
    """Who compares the systems besides the judge."""

    constitution: bool = MISSING
    human_choices: str | None = reads_file()


@dataclass
class HarmfulnessConfig(SupervisedConfig):
    """Absolute harmfulness: a regression on conversations that people rated."""

    node: ClassVar[str] = "evaluate.harmfulness"

    ratings: str | None = reads_file()
    rows: int | None = MISSING

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        at_least("evaluate.harmfulness.rows", self.rows, 1)


@dataclass
class PaperTestsConfig:
    """The paper's released evaluations, and how they are taken."""

    folder: str | None = reads_folder()
    rows: int | None = MISSING
    modes: list[PaperMode] = MISSING
    chain_tokens: int = MISSING

    def __post_init__(self) -> None:
        """Check ranges."""
        at_least_all("evaluate.paper_tests", 1, rows=self.rows, chain_tokens=self.chain_tokens)
        if isinstance(self.modes, list) and not self.modes:
            modes = ", ".join(mode.value for mode in PaperMode)
            raise UserError(
                f"evaluate.paper_tests.modes=[] asks nothing: name one or more of {modes}"
            )


@dataclass
class EvaluateConfig:
    """The comparison of the systems."""

    prompts: int = MISSING
    samples: int = MISSING
    temperature: float = MISSING
    reply_tokens: int = MISSING
    batch_size: int = MISSING
    bootstrap: int = MISSING
    classifier: ReplyClassifier = MISSING
    baselines: BaselinesConfig = field(default_factory=BaselinesConfig)
    persona: bool = MISSING
    opinions: OpinionsConfig = field(default_factory=OpinionsConfig)
    harmfulness: HarmfulnessConfig = field(default_factory=HarmfulnessConfig)
    paper_tests: PaperTestsConfig = field(default_factory=PaperTestsConfig)

    def __post_init__(self) -> None:
        """Check ranges."""
        at_least_all(
            "evaluate",
            1,
            prompts=self.prompts,
            samples=self.samples,
            reply_tokens=self.reply_tokens,
            batch_size=self.batch_size,
            bootstrap=self.bootstrap,
        )
        within("evaluate.temperature", self.temperature, 0.0, 5.0)
