"""What rows of several stages are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer

from cai.dialogue import Conversation, read_messages, to_messages

Absent = Field(exclude_if=lambda value: value is None)
"""Annotation of an optional field that is left out while it is None, instead of written as null."""
OptionalFloat = Annotated[float | None, Absent]
"""A number that some rows do not have."""
Messages = Annotated[
    Conversation, BeforeValidator(read_messages), PlainSerializer(to_messages, when_used="json")
]
"""A conversation, written as ``[{"role": ..., "content": ...}, ...]``."""
SL_CAI = "sl_cai"
"""The system between the helpful assistant and the policy."""
AXES = ("harmlessness", "helpfulness")
"""What systems are compared on."""
Numbers = dict[str, int | float]
"""The numbers of a training step, by name; ``step`` counts from 0."""


@dataclass(frozen=True)
class Metric:
    """An estimate and the bounds of its 95 % interval; None where there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class ReliabilityBin:
    """A bin of a reliability diagram: how many, mean prediction, how often it came true."""

    n: int
    confidence: float
    frequency: float
