"""What samples and reads log-probabilities: this process, or a vLLM server."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from omegaconf import MISSING

from cai.config.bounds import count, number
from cai.config.rules import http_address
from cai.errors import UserError


class Engine(Enum):
    """Whose code runs the model where nothing is trained."""

    local = "local"
    vllm = "vllm"


@dataclass
class SamplerConfig:
    """How replies are sampled; never what is asked of the model."""

    engine: Engine = MISSING
    url: str | None = MISSING
    python: str | None = MISSING
    arguments: list[str] = MISSING
    adapters: str | None = MISSING
    requests: int = count(1, 100_000)
    timeout: float = number(1, 86_400)

    def __post_init__(self) -> None:
        """Check that there is one server."""
        if self.url not in {None, MISSING}:
            http_address("sampler.url", str(self.url))
        if self.engine is Engine.vllm and (self.url is None) == (self.python is None):
            raise UserError(
                "sampler=vllm needs one server: give sampler.url=http://localhost:8000, or "
                "sampler.python=/path/to/python of an environment with vLLM to have one started"
            )
