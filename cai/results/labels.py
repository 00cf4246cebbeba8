"""Rows of the feedback phase: pairs, labels, how far to trust them, preference models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cai.config import ModelConfig
from cai.results.common import Absent, Messages, OptionalFloat, ReliabilityBin


@dataclass(frozen=True)
class ReplyPair:
    """Two replies of SL-CAI to one prompt."""

    prompt_id: str
    kind: str
    messages: Messages
    a: str
    b: str


@dataclass(frozen=True)
class Opinion:
    """What one principle says: probability of the reply shown first, in each order."""

    principle: str
    forward: list[float]
    backward: list[float]


@dataclass(frozen=True)
class LabelledPair:
    """A pair with its AI label: the probability that A is better; None if nothing could be read.

    ``probability`` is the same before it was clamped or hardened.
    """

    prompt_id: str
    messages: Messages
    a: str
    b: str
    label: float | None
    probability: float | None
    opinions: list[Opinion]
    unreadable: int
    questions: int
    tokens: int


@dataclass(frozen=True)
class PreferenceRow:
    """A comparison in the columns that preference trainers expect.

    ``chosen`` is the likelier reply, and ``probability`` belongs to it.
    """

    id: str
    kind: str
    source: str
    prompt: Messages
    chosen: list[dict[str, str]]
    rejected: list[dict[str, str]]
    probability: float


@dataclass(frozen=True)
class PrincipleUse:
    """How often a principle was asked, and which labels it went against."""

    id: str
    n: int
    flips: int
    flipped: list[str]


@dataclass(frozen=True)
class Agreement:
    """Share of rows on which two principles choose the same reply."""

    ids: list[str]
    matrix: list[list[float | None]]


@dataclass(frozen=True)
class LabelCost:
    """Questions asked, and tokens read and written for them."""

    questions: int
    tokens: int


@dataclass(frozen=True)
class KnownAnswers:
    """How a labeller does on comparisons with a known answer; fields are absent without any."""

    known_unreadable: int
    known: Annotated[int | None, Absent] = None
    accuracy: OptionalFloat = None
    ece: OptionalFloat = None
    reliability: Annotated[list[ReliabilityBin] | None, Absent] = None


@dataclass(frozen=True, kw_only=True)
class LabelReport(KnownAnswers):
    """How far labels can be trusted; the inherited fields are of comparisons like the labels."""

    empty: int
    labels: int
    temperature: float
    unreadable: int
    dropped: int
    entropy: float | None
    undecided: float | None
    position_bias: float | None
    principles: list[PrincipleUse]
    agreement: Agreement
    cost: LabelCost
    other: KnownAnswers


@dataclass(frozen=True)
class HeldOut:
    """A preference model on held-out comparisons of one kind."""

    name: str
    n: int
    loss: float
    accuracy: float
    ece: float
    longer_wins: float
    length_correlation: float | None


@dataclass(frozen=True)
class PMMetrics:
    """What a preference model knows, and the mean score that is taken off."""

    sources: list[HeldOut]
    mean: float
    std: float
    length_correlation: float | None
    reliability: list[ReliabilityBin]
    trained_on: dict[str, int]
    pretrained_on: int
    twin: Annotated[PMMetrics | None, Absent] = None


@dataclass(frozen=True)
class PMSettings:
    """What scoring with a preference model needs to know besides its weights.

    Attributes:
        lower_bound: Standard deviations over the members taken off.
        base: What the weights are on; None: the policy's base.
    """

    lower_bound: float
    base: ModelConfig | None = None
