"""Schema of the judge: what compares systems, and depends on nothing that an experiment varies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from omegaconf import MISSING

from cai.config.bounds import count, number
from cai.config.choices import JudgeMethod, JudgeSource
from cai.config.content import reads_file, reads_folder
from cai.config.endpoint import EndpointConfig
from cai.config.optimizer import SupervisedConfig
from cai.errors import UserError


@dataclass
class JudgeTrainingConfig(SupervisedConfig):
    """How an adapter learns from comparisons with a known answer."""

    label_smoothing: float = number(0, 0.499)
    centring: float = number(0, 1000)


def _local(config: JudgeModelsConfig) -> Iterator[str | None]:
    """Yield the paths that lie on this machine; with a revision they are models of a hub."""
    for path in dict.fromkeys(config.paths.values()):
        yield path if config.revision is None else None


@dataclass
class JudgeModelsConfig:
    """Reward models that somebody trained."""

    harmlessness: str | None = reads_folder(where=lambda node: _local(node))
    helpfulness: str | None = MISSING
    revision: str | None = MISSING
    batch_size: int = count()

    @property
    def paths(self) -> dict[str, str]:
        """Return the model of each axis; one that is not given is the other."""
        given = {"harmlessness": self.harmlessness, "helpfulness": self.helpfulness}
        known = [path for path in given.values() if path and path != MISSING]
        return {axis: path or known[0] for axis, path in given.items()} if known else {}


@dataclass
class JudgeEndpointConfig(EndpointConfig):
    """A judge behind a server."""

    node: ClassVar[str] = "judge.endpoint"


@dataclass
class JudgeConfig:
    """What compares systems."""

    source: JudgeSource = MISSING
    method: JudgeMethod = MISSING
    pairs: int | None = count()
    adapter: JudgeTrainingConfig = field(default_factory=JudgeTrainingConfig)
    models: JudgeModelsConfig = field(default_factory=JudgeModelsConfig)
    endpoint: JudgeEndpointConfig = field(default_factory=JudgeEndpointConfig)
    people: str | None = reads_file()

    def __post_init__(self) -> None:
        """Check that the source has what it needs."""
        if self.source is JudgeSource.folder and not self.models.paths:
            raise UserError(
                "judge=folder names no model: give judge.models.harmlessness=PATH (and "
                "judge.models.helpfulness, if that is another one)"
            )
        if self.source is JudgeSource.endpoint and not self.endpoint.used:
            raise UserError(
                "judge=endpoint names no server: give judge.endpoint.url and judge.endpoint.model"
            )
