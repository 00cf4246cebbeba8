"""A result with everything that it was made from, found in the folder of a run or of a result."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from cai.contracts.policies import Evaluation
from cai.errors import UserError
from cai.files import read_json, sha256_of
from cai.pipeline.stage import RECORD, RESULT, TARGET, Result, result_name
from cai.results.systems import Summary


@dataclass(frozen=True)
class Lineage:
    """Results by stage, upstream first.

    Attributes:
        results: Those that are there; the last one is what was asked for.
        gone: Names of those that are not there any more.
    """

    results: dict[str, Result]
    gone: list[str]

    @property
    def target(self) -> Result:
        """What was asked for."""
        return list(self.results.values())[-1]

    def summary(self) -> Summary | None:
        """Return what an evaluation found out; None if there was none."""
        if "evaluate" not in self.results:
            return None
        found = self.results["evaluate"]
        evaluation = Evaluation(found.stage, found.fingerprint, found.path)
        try:
            return evaluation.summary.read()
        except (OSError, ValueError) as error:
            raise UserError(
                f"{evaluation.summary.path} was not written by this version: run stage=evaluate "
                "again"
            ) from error


def trace(folder: Path) -> Lineage:
    """Find a result and the results that it was made from, which lie beside it.

    Args:
        folder: Of a result, or of a run that reached its target.

    Raises:
        UserError: If it is neither.
    """
    pointers = [folder / name for name in (TARGET, RESULT) if (folder / name).is_file()]
    place = Path(read_json(pointers[0])["artifact"]) if pointers else folder
    if not (place / RECORD).is_file():
        raise UserError(
            f"{str(folder)!r} holds no finished result: give a folder outputs/artifacts/..., such "
            "as rl-..., or the folder of a run that has ended"
        )
    results: dict[str, Result] = {}
    gone: list[str] = []
    _add(place.resolve(), results, gone)
    return Lineage(results, gone)


def _add(place: Path, results: dict[str, Result], gone: list[str]) -> None:
    """Put a result behind those that it was made from."""
    try:
        record = read_json(place / RECORD)
        stage, key, inputs = record["stage"], record["fingerprint"], record["recipe"]["inputs"]
    except (OSError, json.JSONDecodeError, KeyError) as error:
        raise UserError(
            f"{place / RECORD} can't be read: make the result again with the command that made it"
        ) from error
    for need, its_key in inputs.items():
        name = result_name(need, its_key)
        if not (place.parent / name / RECORD).is_file():
            if name not in gone:
                gone.append(name)
        elif need not in results:
            _add(place.parent / name, results, gone)
    results[stage] = Result(stage, key, place)


def check_unchanged(result: Result, folder: Path) -> None:
    """Check the files of a folder in a result against its record.

    Raises:
        UserError: If one is not what it was.
    """
    known = result.record()["files"]
    for name, digest in known.items():
        path = result.path / name
        if folder not in path.parents:
            continue
        if not path.is_file() or sha256_of(path) != digest:
            raise UserError(
                f"{path} has changed since it was made: run stage={result.stage} again, which sets "
                "the result aside and makes it anew"
            )
