"""How many stage runs the arms of a sweep have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cai.config import Config


@dataclass(frozen=True)
class Sharing:
    """How many stage runs the arms of a sweep need.

    Attributes:
        arms: Number of arms.
        needed: Stage runs per stage if every arm made its own.
        distinct: Different results among them, per stage.
        made: How many of these are there already, per stage.
    """

    arms: int
    needed: Counter[str]
    distinct: Counter[str]
    made: Counter[str]

    def describe(self) -> str:
        """Write the table and what sharing saves."""
        needed, distinct, made = (c.total() for c in (self.needed, self.distinct, self.made))
        rows = [("stage", "arms", "runs", "made before")]
        rows += [
            (stage, str(self.needed[stage]), str(self.distinct[stage]), str(self.made[stage]))
            for stage in self.needed
        ]
        table = [f"{name:10}{a:>6}{b:>6}{c:>13}" for name, a, b, c in rows]
        return "\n".join(
            [
                f"sweep of {self.arms} arms: {distinct} stage runs instead of {needed}; "
                f"sharing saves {needed - distinct}, and {made} are there already",
                *table,
            ]
        )


def share(configs: Sequence[Config]) -> Sharing:
    """Plan every arm and count the stage runs that several have in common."""
    from cai.contracts.table import stages
    from cai.pipeline.plan import State, plan
    from cai.pipeline.store import Store

    needed: Counter[str] = Counter()
    states: dict[tuple[str, str], State] = {}
    for config in configs:
        for step in plan(config, Store(Path(config.outputs) / "artifacts"), stages()):
            needed[step.stage.name] += 1
            states[step.stage.name, step.key] = step.state
    distinct = Counter(stage for stage, _ in states)
    made = Counter(stage for (stage, _), state in states.items() if state is State.reuse)
    return Sharing(len(configs), needed, distinct, made)
