"""The judge of all systems."""

from __future__ import annotations

from dataclasses import dataclass

from cai import results
from cai.config import DataConfig, JudgeConfig, ModelConfig
from cai.contracts.preferences import PMFolder
from cai.jsonl import Document
from cai.pipeline.stage import Result


@dataclass(frozen=True)
class JudgeSettings:
    """What the judge stage reads: nothing that an arm of an experiment varies."""

    model: ModelConfig
    data: DataConfig
    judge: JudgeConfig


class JudgeModels(Result):
    """The judge: models for both axes if it was trained here, and how far it can be trusted."""

    def axis(self, name: str) -> PMFolder:
        """Return the folder of the model that was trained for an axis."""
        return PMFolder(self.path / name)

    @property
    def report(self) -> Document[results.judge.JudgeReport]:
        """Who judges and how well."""
        return Document(self.path / "report.json", results.judge.JudgeReport)
