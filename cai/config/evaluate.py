"""The evaluation's node of the config."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from cai.config.bounds import count, number
from cai.config.choices import PaperMode, ReplyClassifier
from cai.config.content import reads_file, reads_folder
from cai.config.optimizer import SupervisedConfig
from cai.errors import UserError


@dataclass
class BaselinesConfig:
    """Systems that are compared beside those of the recipe."""

    best_of: int = count(1, 10_000)
    snapshots: int = count(0, 10_000)


@dataclass
class OpinionsConfig:
    """Who compares the systems besides the judge."""

    constitution: bool = MISSING
    human_choices: str | None = reads_file()


@dataclass
class HarmfulnessConfig(SupervisedConfig):
    """Absolute harmfulness: a regression on conversations that people rated."""

    ratings: str | None = reads_file()
    rows: int | None = count()


@dataclass
class PaperTestsConfig:
    """The paper's released evaluations, and how they are taken."""

    folder: str | None = reads_folder()
    rows: int | None = count()
    modes: list[PaperMode] = MISSING
    chain_tokens: int = count()

    def __post_init__(self) -> None:
        """Check that something is asked."""
        if isinstance(self.modes, list) and not self.modes:
            modes = ", ".join(mode.value for mode in PaperMode)
            raise UserError(
                f"evaluate.paper_tests.modes=[] asks nothing: name one or more of {modes}"
            )


@dataclass
class EvaluateConfig:
    """The comparison of the systems."""

    prompts: int = count()
    samples: int = count(1, 10_000)
    temperature: float = number(0, 5)
    reply_tokens: int = count()
    batch_size: int = count()
    bootstrap: int = count(1, 1_000_000)
    classifier: ReplyClassifier = MISSING
    baselines: BaselinesConfig = field(default_factory=BaselinesConfig)
    persona: bool = MISSING
    opinions: OpinionsConfig = field(default_factory=OpinionsConfig)
    harmfulness: HarmfulnessConfig = field(default_factory=HarmfulnessConfig)
    paper_tests: PaperTestsConfig = field(default_factory=PaperTestsConfig)
