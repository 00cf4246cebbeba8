"""Nodes that name a model behind an OpenAI-compatible server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from omegaconf import MISSING

from cai.config.rules import at_least, environment_variable, http_address, within
from cai.errors import UserError


@dataclass
class EndpointConfig:
    """A feedback model behind an OpenAI-compatible server."""

    node: ClassVar[str] = "feedback.endpoint"

    url: str | None = MISSING
    model: str | None = MISSING
    key_variable: str | None = MISSING
    timeout: float = MISSING
    retries: int = MISSING
    per_second: float = MISSING
    votes: int = MISSING

    def __post_init__(self) -> None:
        """Check ranges, and that no key is where it would be written to disk."""
        at_least(f"{self.node}.retries", self.retries, 0)
        at_least(f"{self.node}.votes", self.votes, 1)
        within(f"{self.node}.timeout", self.timeout, 0.1, 3600)
        within(f"{self.node}.per_second", self.per_second, 0.01, 1000)
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
