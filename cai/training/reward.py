"""Preference models as RL and the evaluation use them, loaded from the pm stage's result."""

from __future__ import annotations

import statistics
from pathlib import Path

from cai.config import HardwareConfig
from cai.contracts.preferences import PMFolder, PreferenceModels
from cai.lm.heads import has_scalar_model, load_scalar_model
from cai.lm.load import LanguageModel
from cai.training.rollouts import RewardModel


def load_reward_model(
    hardware: HardwareConfig, model: LanguageModel, pm: PreferenceModels, name: str
) -> RewardModel | None:
    """Load a PM with all its members; None if there is none of that name.

    Args:
        hardware: Where a PM with weights of its own goes.
        model: The base that adapters are loaded on.
        pm: Result of the pm stage.
        name: ``model`` or ``twin``.
    """
    members = [PMFolder(path) for path in (pm.path / name, *pm.path.glob(f"{name}-*"))]
    found = sorted((m for m in members if has_scalar_model(m.path)), key=lambda m: m.path)
    if not found:
        return None
    networks = [load_scalar_model(model, adapter_name(m.path), m.path, hardware) for m in found]
    # Scores are averaged over the members, and so is the level that is taken off.
    mean = statistics.fmean(member.metrics.read().mean for member in found)
    return RewardModel(networks, mean, pm.settings.read().lower_bound)


def adapter_name(folder: Path) -> str:
    """Name a PM's adapter; a bare "model" would collide with a part of the network."""
    return "pm_" + folder.name.replace("-", "_")
