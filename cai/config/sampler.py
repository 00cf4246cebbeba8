"""What samples and reads log-probabilities: this process, or a vLLM server."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from omegaconf import MISSING

from cai.config.rules import at_least, http_address, within
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
    requests: int = MISSING
    timeout: float = MISSING

    def __post_init__(self) -> None:
        """Check ranges, and that there is one server."""
        at_least("sampler.requests", self.requests, 1)
        within("sampler.timeout", self.timeout, 1, 86_400)
        if self.url not in {None, MISSING}:
            http_address("sampler.url", str(self.url))
        if self.engine is Engine.vllm and (self.url is None) == (self.python is None):
            raise UserError(
                "sampler=vllm needs one server: give sampler.url=http://localhost:8000, or "
                "sampler.python=/path/to/python of an environment with vLLM to have one started"
            )
