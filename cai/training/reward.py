"""Preference models as RL and the evaluation use them, loaded from the pm stage's result."""

from __future__ import annotations

import statistics
from pathlib import Path
from weakref import WeakValueDictionary

from cai.config import HardwareConfig, ModelConfig
from cai.contracts.preferences import PMFolder, PreferenceModels
from cai.lm.heads import has_scalar_model, load_scalar_model
from cai.lm.load import LanguageModel, load_copy
from cai.training.rollouts import RewardModel


def load_reward_model(
    hardware: HardwareConfig, model: LanguageModel, pm: PreferenceModels, name: str
) -> RewardModel | None:
    """Load a PM with all its members; None if there is none of that name.

    Args:
        hardware: Where a PM with weights of its own goes.
        model: Whose replies are scored; the base that adapters are loaded on, unless the PM has
            another.
        pm: Result of the pm stage.
        name: ``model`` or ``twin``.
    """
    members = [PMFolder(path) for path in (pm.path / name, *pm.path.glob(f"{name}-*"))]
    found = sorted((m for m in members if has_scalar_model(m.path)), key=lambda m: m.path)
    if not found:
        return None
    settings = pm.settings.read()
    own = settings.base is not None and settings.base != model.config
    stand = _standing(settings.base, hardware) if own and settings.base else model
    networks = [load_scalar_model(stand, adapter_name(m.path), m.path, hardware) for m in found]
    # Scores are averaged over the members, and so is the level that is taken off.
    mean = statistics.fmean(member.metrics.read().mean for member in found)
    return RewardModel(networks, mean, settings.lower_bound, model.chat if own else None)


_bases: WeakValueDictionary[str, LanguageModel] = WeakValueDictionary()
"""Bases of PMs that do not stand on the policy's, as long as somebody uses them."""


def _standing(config: ModelConfig, hardware: HardwareConfig) -> LanguageModel:
    """Load the base that a PM and its twin share."""
    key = repr((config, hardware))
    model = _bases.get(key) or load_copy(config, hardware)
    _bases[key] = model
    return model


def adapter_name(folder: Path) -> str:
    """Name a PM's adapter; a bare "model" would collide with a part of the network."""
    return "pm_" + folder.name.replace("-", "_")
