"""The contract of a stage: what it reads, needs, costs and makes.

What a stage is given is typed by four classes. *Settings* has a field for every node of the config
that the stage is hashed on, and it sees no other. *Inputs* has a field for every stage whose result
it reads. *Result* is the folder that it fills, with a property for every file. A ``Job`` says how
it is run, which never changes what it makes.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, get_args, get_type_hints

from cai.config import Config, HardwareConfig, OptimizerKind, SamplerConfig, TrainerConfig
from cai.errors import UserError
from cai.files import read_json
from cai.tracking import Tracker

RECORD = "artifact.json"
TARGET = "target.json"
"""In the folder of a run: where the result of its target stage is."""
NEEDS = "needs.json"
"""In the folder of a run: names of the results that it asked for."""
RESULT = "result.json"
"""In the folder of a run that reached an evaluation: where that is."""

HOW = frozenset(
    {"dry_run", "experiment", "hardware", "sampler", "trainer", "tracking", "stage", "outputs"}
)
"""Nodes that may change how a stage runs and never what it makes: handed to all, hashed by none."""

S = TypeVar("S")
I = TypeVar("I")  # noqa: E741 - settings, inputs, result
R = TypeVar("R", bound="Result")


@dataclass(frozen=True)
class Result:
    """The folder of a stage's output, finished or in the making.

    Attributes:
        stage: Which stage makes it.
        fingerprint: Of everything that can change it.
        path: Its folder.
    """

    stage: str
    fingerprint: str
    path: Path

    @property
    def name(self) -> str:
        """Name of the finished folder, also in the tracker."""
        return result_name(self.stage, self.fingerprint)

    def record(self) -> dict[str, Any]:
        """Read what is known about its making."""
        record: dict[str, Any] = read_json(self.path / RECORD)
        return record


def result_name(stage: str, key: str) -> str:
    """Return the name of a result's folder."""
    return f"{stage}-{key[:12]}"


@dataclass(frozen=True)
class Job:
    """How a stage is run.

    Attributes:
        hardware: Where.
        trainer: Arguments of Lightning's Trainer.
        tracker: Takes metrics.
        sampler: Who samples.
        facts: Taken down beside the result, with versions and seconds.
    """

    hardware: HardwareConfig
    trainer: TrainerConfig
    tracker: Tracker
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    facts: dict[str, str] = field(default_factory=dict)


class Holds(NamedTuple):
    """What a stage has in memory at once beside the base, as its settings imply it.

    Attributes:
        adapters: How many there are.
        trained: How many of them are trained.
        whole: Networks of which all weights are trained.
        copies: Such networks that stay as they are.
        optimizer: Of what is trained.
        undo: Whether a step that goes wrong is taken back.
        length: Tokens of a prompt with its reply.
        read: Share of the trained tokens whose logits are read.
        rows: Replies that are sampled, as many as fit at a time; 0: none.
    """

    adapters: int = 0
    trained: int = 0
    whole: int = 0
    copies: int = 0
    optimizer: OptimizerKind = OptimizerKind.adamw
    undo: bool = False
    length: int = 0
    read: float = 0.0
    rows: int = 0


class Work(NamedTuple):
    """What a stage has to do, as its settings imply it: prompts, and tokens of each kind."""

    prompts: int
    read: int = 0
    sampled: int = 0
    trained: int = 0
    holds: Holds = Holds()


Run = Callable[[S, I, R, Job], None]
"""Fills the result's folder."""


def at(where: str) -> Callable[..., Any]:
    """Name a function as ``module:function``; the module is imported when it is first called.

    So the table of stages can be read without the libraries that stages need.
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        module, _, name = where.partition(":")
        return getattr(importlib.import_module(module), name)(*args, **kwargs)

    return call


@dataclass(frozen=True)
class Stage(Generic[S, I, R]):
    """A step of the method.

    Attributes:
        name: Also its file in conf/stage and its node of the config.
        settings: A dataclass: nodes of the config by name, the stage's own among them.
        inputs: A dataclass: results by the name of their stage; one that depends on the settings
            may be None.
        result: What it makes.
        run: Makes it.
        cost: What that takes.
        needs: Names of the inputs under these settings; None: all of them.
        marks: What else than settings and files a result depends on, by name, to be hashed.
        notes: Sentences about its data that are good to know before anything starts.
        version: Raise it when the same settings should give another result.
        shared: Whether several processes can do it together; what asks a server can't.
    """

    name: str
    settings: type[S]
    inputs: type[I]
    result: type[R]
    run: Run[S, I, R]
    cost: Callable[[Config], Work]
    needs: Callable[[S], tuple[str, ...]] | None = None
    marks: Callable[[S], Mapping[str, str]] = lambda settings: {}
    notes: Callable[[S], list[str]] = lambda settings: []
    version: int = 1
    shared: Callable[[S], bool] = lambda settings: True

    @property
    def schema(self) -> type[Any]:
        """The class of the stage's own node of the config."""
        schema: type[Any] = get_type_hints(self.settings)[self.name]
        return schema

    def read(self, config: Config) -> S:
        """Take from the config what the stage is hashed on.

        Raises:
            UserError: If a node is not there.
        """
        return self.settings(
            **{name: config.node(name, object) for name in field_names(self.settings)}
        )

    def needed(self, settings: S) -> tuple[str, ...]:
        """Return the stages whose results it reads."""
        return self.needs(settings) if self.needs else tuple(field_names(self.inputs))

    def handed(self, results: Mapping[str, Result]) -> I:
        """Give results to the inputs, each as the class that the input asks for."""
        hints = get_type_hints(self.inputs)
        given = {}
        for name, result in results.items():
            kind = next(
                (arg for arg in get_args(hints[name]) if arg is not type(None)), hints[name]
            )
            given[name] = kind(result.stage, result.fingerprint, result.path)
        absent = {name: None for name in hints if name not in given}
        return self.inputs(**given, **absent)


def field_names(kind: Any) -> list[str]:
    """Return the names of a dataclass's fields."""
    return [item.name for item in fields(kind)]


def check(stage: Stage[Any, Any, Any]) -> None:
    """Check what a type checker can't see in a stage that another project adds.

    Raises:
        UserError: Says what is wrong with it.
    """
    for role in ("settings", "inputs"):
        kind = getattr(stage, role)
        if not (isinstance(kind, type) and is_dataclass(kind)):
            raise UserError(f"stage {stage.name!r}: its {role} should be a dataclass, not {kind!r}")
    names = field_names(stage.settings)
    if stage.name not in names:
        raise UserError(
            f"stage {stage.name!r}: its settings have no field {stage.name!r} for its own node"
        )
    if how := sorted(HOW.intersection(names)):
        raise UserError(
            f"stage {stage.name!r}: its settings can't have {how[0]!r}, which says how a run is "
            "done and not what it makes"
        )
    if not is_dataclass(stage.schema):
        raise UserError(
            f"stage {stage.name!r}: the schema of its node should be a dataclass, not "
            f"{stage.schema!r}"
        )
