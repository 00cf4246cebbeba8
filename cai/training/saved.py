"""A preference model that the pm stage saved, found in a folder and loaded on its own base."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cai.config import HardwareConfig, ModelConfig, ModelSource
from cai.contracts.preferences import PreferenceModels
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


def load_saved(saved: SavedModel, hardware: HardwareConfig) -> LoadedModel:
    """Load a preference model on the base that it was trained on.

    Raises:
        UserError: If the base can't be had or is not the same any more.
    """
    root = saved.pm.path
    recipe = saved.pm.record()["recipe"]
    own = saved.pm.settings.read().base
    try:
        config: Any = own or OmegaConf.to_object(
            OmegaConf.merge(OmegaConf.structured(ModelConfig), recipe["settings"]["model"])
        )
    except OmegaConfBaseException as error:
        raise UserError(
            f"{root / RECORD} describes a base model in a way that this version can't read "
            f"({str(error).splitlines()[0]}): make the preference model again with stage=pm"
        ) from error
    if config.source is ModelSource.folder:
        place = "pm.base.path" if own else "model.path"
        if digest_of_folder(Path(config.path), place) != recipe["content"][place]:
            raise UserError(f"the base model in {config.path} has changed since {root} was trained")
    model = load_model(config, hardware)
    reward = load_reward_model(hardware, model, saved.pm, saved.name)
    assert reward is not None
    return LoadedModel(model, reward)
