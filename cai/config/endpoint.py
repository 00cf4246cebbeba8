"""Nodes that name a model behind an OpenAI-compatible server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from omegaconf import MISSING

from cai.config.bounds import count, number
from cai.config.rules import environment_variable, http_address
from cai.errors import UserError


@dataclass
class EndpointConfig:
    """A feedback model behind an OpenAI-compatible server."""

    node: ClassVar[str] = "feedback.endpoint"

    url: str | None = MISSING
    model: str | None = MISSING
    key_variable: str | None = MISSING
    timeout: float = number(0.1, 3600)
    retries: int = count(0, 1000)
    per_second: float = number(0.01, 1000)
    votes: int = count(1, 1000)

    def __post_init__(self) -> None:
        """Check that no key is where it would be written to disk."""
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
