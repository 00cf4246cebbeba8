"""The models of a run by the names that its evaluation gives them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cai.config import ModelConfig, ModelSource
from cai.contracts.assistants import HelpfulSettings, SFTSettings, Trained
from cai.contracts.policies import PolicyResult, RLSettings
from cai.contracts.preferences import PMStageSettings, PreferenceModels
from cai.contracts.recorded import recorded
from cai.errors import UserError
from cai.export.lineage import Lineage
from cai.files import digest_of_folder
from cai.lm.heads import has_scalar_model
from cai.lm.language_model import is_tuned
from cai.pipeline.stage import Result
from cai.results.common import SL_CAI

PREFERENCE = {"model": "pm", "twin": "twin"}
"""Names of preference models, by the folder they are in; members of an ensemble add a number."""


@dataclass(frozen=True)
class System:
    """One model.

    Attributes:
        name: As in the evaluation, or ``pm`` and ``twin``.
        result: What made it.
        folder: Its weights.
        base: What they stand on.
        scores: Whether it is a preference model, and not an assistant.
    """

    name: str
    result: Result
    folder: Path
    base: ModelConfig
    scores: bool = False


def find_system(lineage: Lineage, name: str) -> System:
    """Return the model of a name.

    Raises:
        UserError: If there is none, with the names there are; or if its base has changed.
    """
    systems = {system.name: system for system in all_systems(lineage)}
    if name not in systems:
        there = f"there are {', '.join(systems)}" if systems else "it has no model"
        gone = f"; gone: {', '.join(lineage.gone)}" if lineage.gone else ""
        raise UserError(f"--system={name} is not in {lineage.target.path.name}: {there}{gone}")
    _check_base(systems[name])
    return systems[name]


def all_systems(lineage: Lineage) -> list[System]:
    """List the models of a run."""
    found = []
    for stage, result in lineage.results.items():
        if stage == "helpful":
            found.append(_assistant("helpful", result, recorded(result, HelpfulSettings).model))
        elif stage == "sft":
            found.append(_assistant(SL_CAI, result, recorded(result, SFTSettings).model))
        elif stage == "rl":
            found += _policies(result)
        elif stage == "pm":
            found += _preference_models(result)
    return found


def _assistant(name: str, result: Result, base: ModelConfig) -> System:
    trained = Trained(result.stage, result.fingerprint, result.path)
    return System(name, result, trained.model, base)


def _policies(result: Result) -> list[System]:
    """List the policy and its snapshots."""
    settings = recorded(result, RLSettings)
    policy = PolicyResult(result.stage, result.fingerprint, result.path)
    name, base = settings.recipe.name, settings.model
    kept = [path for path in sorted(policy.snapshots.glob("*")) if is_tuned(path)]
    snapshots = [System(f"{name}@{int(path.name)}", result, path, base) for path in kept]
    return [_assistant(name, result, base), *snapshots]


def _preference_models(result: Result) -> list[System]:
    base = recorded(result, PMStageSettings).base
    models = PreferenceModels(result.stage, result.fingerprint, result.path)
    found = []
    for place, name in PREFERENCE.items():
        paths = [models.named(place).path, *sorted(result.path.glob(f"{place}-*"))]
        found += [
            System(path.name.replace(place, name, 1), result, path, base, scores=True)
            for path in paths
            if has_scalar_model(path)
        ]
    return found


def _check_base(system: System) -> None:
    """Check that a base in a local folder is the one that was trained on."""
    if system.base.source is not ModelSource.folder:
        return
    known = system.result.record()["recipe"]["content"]
    keys = [key for key in ("pm.base.path", "model.path") if key in known]
    digests = {key: digest_of_folder(Path(system.base.path), key) for key in keys}
    if not any(known[key] == digest for key, digest in digests.items()):
        raise UserError(
            f"the base model in {system.base.path} has changed since {system.result.path} was made"
        )
