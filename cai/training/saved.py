"""A preference model that the pm stage saved, found in a folder and loaded on its own base."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from cai.config import Dtype, HardwareConfig, ModelConfig, ModelSource
from cai.contracts.preferences import PreferenceModels
from cai.contracts.recorded import recorded_node
from cai.errors import UserError
from cai.files import digest_of_folder
from cai.lm.heads import has_scalar_model
from cai.lm.load import LanguageModel, load_model
from cai.pipeline.stage import RECORD
from cai.training.reward import load_reward_model
from cai.training.rollouts import RewardModel


class SavedModel(NamedTuple):
    """Where a preference model lies.

    Attributes:
        pm: The stage's result.
        name: Of the model in it: ``model``, ``twin``.
    """

    pm: PreferenceModels
    name: str


class LoadedModel(NamedTuple):
    """A preference model with the base that it stands on."""

    model: LanguageModel
    reward: RewardModel


def find_saved(folder: Path) -> SavedModel | None:
    """Find the result of the pm stage, or a model in it; None if a folder is neither."""
    for root, name in ((folder, "model"), (folder.resolve().parent, folder.resolve().name)):
        pm = PreferenceModels("pm", "", root)
        found = (root / RECORD).is_file() and has_scalar_model(root / name)
        if found and pm.record()["stage"] == "pm":
            return SavedModel(pm, name)
    return None


def load_saved(
    saved: SavedModel, hardware: HardwareConfig, dtype: Dtype | None = None
) -> LoadedModel:
    """Load a preference model on the base that it was trained on.

    Args:
        saved: Where it lies.
        hardware: Where it is to compute.
        dtype: Of the base, if not that in which it was trained.

    Raises:
        UserError: If the base can't be had or is not the same any more.
    """
    own = saved.pm.settings.read().base
    config: ModelConfig = own or recorded_node(saved.pm, "model", ModelConfig)
    if config.source is ModelSource.folder:
        place = "pm.base.path" if own else "model.path"
        known = saved.pm.record()["recipe"]["content"][place]
        if digest_of_folder(Path(config.path), place) != known:
            raise UserError(
                f"the base model in {config.path} has changed since {saved.pm.path} was trained"
            )
    model = load_model(replace(config, dtype=dtype or config.dtype), hardware)
    reward = load_reward_model(hardware, model, saved.pm, saved.name)
    assert reward is not None
    return LoadedModel(model, reward)
