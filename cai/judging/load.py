"""The judge that the settings name, ready to compare."""

from __future__ import annotations

from pathlib import Path

from cai.config import HardwareConfig, JudgeConfig, JudgeMethod, JudgeSource
from cai.contracts.judges import JudgeModels
from cai.judging.asking import connect
from cai.judging.folder import load_folder
from cai.judging.judge import Judge
from cai.judging.readout import load_readout
from cai.judging.trained import load_trained
from cai.lm.embedded import cache_folder
from cai.lm.language_model import LanguageModel
from cai.results.common import AXES


def load_judge(
    config: JudgeConfig, model: LanguageModel, trained: JudgeModels, hardware: HardwareConfig
) -> Judge:
    """Load the judge.

    Args:
        config: Who it is.
        model: The run's base, for one that was trained here.
        trained: Result of the judge stage.
        hardware: Where it goes.

    Raises:
        UserError: If it can't be had.
    """
    if config.source is JudgeSource.endpoint:
        return connect(config.endpoint, cache_folder() / "endpoint")
    if config.source is JudgeSource.folder:
        return load_folder(config.models, hardware)
    if config.method is JudgeMethod.readout:
        return load_readout(model, trained, hardware.micro_tokens)
    return load_trained(model, trained, hardware)


def names(config: JudgeConfig, base: str) -> dict[str, str]:
    """Say for people who judges each axis."""
    if config.source is JudgeSource.endpoint:
        return dict.fromkeys(AXES, str(config.endpoint.model))
    if config.source is JudgeSource.folder:
        return {axis: Path(path).name for axis, path in config.models.paths.items()}
    return dict.fromkeys(AXES, f"trained on {base}")
