"""Reading results: one evaluate run as it is, several joined on one Elo scale."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cai.algorithms.elo import RATINGS, Contest, rate
from cai.errors import UserError
from cai.pipeline.stage import RECORD
from cai.report.paper import read_paper_results

Row = dict[str, Any]

OWN_SCALES = (
    "These runs share no system, so there is no scale for all of them: an Elo counts from the "
    "SL-CAI of its own run (or its first system). The other columns compare as they are."
)
PARTIAL = ("endpoint", "human")
"""Judges who need not have compared all systems."""
PARTLY = (
    "Not all systems here were linked by the comparisons of an endpoint or of people: where they "
    "were not, that judge's Elo counts from the SL-CAI of its own run (or its first system)."
)


@dataclass(frozen=True)
class Result:
    """What the report shows.

    Attributes:
        systems: ``{"name", "metrics": {name: {"value", "low", "high"}}}`` each.
        replies: Sampled replies, with the system's name as shown.
        runs: The summary of every folder.
        upstream: What earlier stages left, of the first folder.
        paper: The paper's own tests with everyone's results.
    """

    systems: list[Row]
    replies: list[Row]
    runs: list[Row]
    upstream: dict[str, Any]
    paper: list[Row] = field(default_factory=list)

    @property
    def own_scales(self) -> bool:
        """Whether ratings of different runs can't be compared."""
        return any(OWN_SCALES in run["notes"] for run in self.runs)


def collect(folders: Sequence[Path]) -> Result:
    """Read result folders, or run folders that point to one.

    Raises:
        UserError: If a folder holds no result.
    """
    found = [_result_folder(folder) for folder in folders]
    runs = [_summary(folder) for folder in found]
    names = _names(runs)
    systems: dict[str, Row] = {}
    replies: list[Row] = []
    matches: list[Row] = []
    for folder, run, shown in zip(found, runs, names, strict=True):
        fresh = {s["name"] for s in run["systems"] if shown[s["name"]] not in systems}
        for system in run["systems"]:
            if system["name"] in fresh:
                systems[shown[system["name"]]] = {**system, "name": shown[system["name"]]}
        replies += [
            {**row, "system": shown[row["system"]]}
            for row in _jsonl(folder / "replies.jsonl")
            if row["system"] in fresh
        ]
        matches += [
            {**row, "first": shown[row["first"]], "second": shown[row["second"]]}
            for row in _jsonl(folder / "matches.jsonl")
        ]
    if len(found) > 1 and (note := _rate_together(systems, matches)):
        runs[0]["notes"] = [*runs[0]["notes"], note]
    upstream = _upstream(found[0] / "upstream")
    paper = read_paper_results(found, runs, names)
    return Result(list(systems.values()), replies, runs, upstream, paper)


def _result_folder(folder: Path) -> Path:
    pointer = folder / "result.json"
    if pointer.is_file():
        folder = Path(json.loads(pointer.read_text(encoding="utf-8"))["artifact"])
    if not (folder / "summary.json").is_file():
        raise UserError(
            f"{str(folder)!r} holds no evaluation: give folders named evaluate-... below "
            "outputs/artifacts, or the folder of a run that reached stage=evaluate"
        )
    return folder


def _summary(folder: Path) -> Row:
    """Read a summary, and how long each stage took where its artifact is still there."""
    run: Row = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    for stage in run["stages"]:
        record = folder.parent / stage["artifact"] / RECORD
        if record.is_file():
            stage["seconds"] = json.loads(record.read_text(encoding="utf-8"))["made"]["seconds"]
    return run


def _names(runs: list[Row]) -> list[dict[str, str]]:
    """Name systems for display: one model has one name, and differing ones say what differs."""
    differing = _differing(runs)
    said = [", ".join(f"{key}={run['settings'].get(key)}" for key in differing) for run in runs]
    models: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for run, about in zip(runs, said, strict=True):
        for system in run["systems"]:
            models[(system["name"],)].add(system["model"])
            models[system["name"], about].add(system["model"])

    def title(system: Row, about: str) -> str:
        name, model = system["name"], system["model"]
        if len(models[(name,)]) == 1:
            return str(name)
        told = [about] if len(models[name, about]) == 1 else [about, model]
        return f"{name} ({', '.join(filter(None, told))})"

    return [
        {system["name"]: title(system, about) for system in run["systems"]}
        for run, about in zip(runs, said, strict=True)
    ]


def _differing(runs: list[Row]) -> list[str]:
    keys = sorted({key for run in runs for key in run["settings"]} - {"constitution.description"})
    values = {key: {json.dumps(run["settings"].get(key)) for run in runs} for key in keys}
    return [key for key in keys if len(values[key]) > 1]


def zero_of(names: Sequence[str]) -> str:
    """Name the system whose Elo is 0: SL-CAI, or the first where it is not among them."""
    return next((name for name in names if name.startswith("sl_cai")), names[0])


def _rate_together(systems: dict[str, Row], matches: list[Row]) -> str | None:
    """Replace the ratings of single runs by one fit; say so where comparisons don't link them.

    People and endpoints may have compared only some systems of some runs, which leaves the
    scales of the other judges whole.
    """
    anchor = zero_of(list(systems))
    fits, note = {}, None
    for metric, (judge, axis) in RATINGS.items():
        chosen = [
            Contest(row["first"], row["second"], row["outcome"], row["prompt_id"])
            for row in matches
            if row["judge"] == judge and row["axis"] == axis
        ]
        try:
            fits[metric] = rate(chosen, anchor) if chosen else {}
        except ValueError:
            if judge not in PARTIAL:
                return OWN_SCALES
            note = PARTLY
    for metric, ratings in fits.items():
        for name, rating in ratings.items():
            bounds = {"low": rating.low, "high": rating.high}
            systems[name]["metrics"][metric] = {
                "value": rating.elo,
                **{key: bound if math.isfinite(bound) else None for key, bound in bounds.items()},
            }
    return note


def styles(result: Result) -> dict[str, Counter[str]]:
    """Count the styles of reply to red-team prompts, per system."""
    counts: dict[str, Counter[str]] = {system["name"]: Counter() for system in result.systems}
    for row in result.replies:
        if row["set"] == "red_team":
            counts[row["system"]][row["style"]] += 1
    return counts


def _upstream(folder: Path) -> dict[str, Any]:
    files = sorted(folder.glob("*.json*")) if folder.is_dir() else []
    return {
        path.stem: _jsonl(path) if path.suffix == ".jsonl" else json.loads(path.read_text("utf-8"))
        for path in files
    }


def _jsonl(path: Path) -> list[Row]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]
