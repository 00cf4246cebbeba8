"""From conf/ to a typed Config, and from Hydra's errors to one sentence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from cai.config import Config
from cai.errors import UserError

CONF = Path(__file__).resolve().parents[1] / "conf"
NODES = ("helpful", "revise", "sft", "feedback", "pm", "rl", "evaluate")

ConfigStore.instance().store(name="schema", node=Config)


def typed(cfg: DictConfig) -> Config:
    """Check types and ranges and leave Hydra's world; stages that are not in the chain are None."""
    for node in NODES:
        if OmegaConf.is_missing(cfg, node):
            cfg[node] = None
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise UserError(f"{missing[0]} has no value: give one on the command line or in conf/")
    return cast(Config, OmegaConf.to_object(cfg))


def explain(error: BaseException) -> str:
    """Put an error in one sentence, without type names and chains of causes."""
    causes = []
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return str(cause)
        causes.append(str(cause))
        cause = cause.__cause__ or cause.__context__
    text = " ".join(line.strip() for line in causes[0].splitlines() if line.strip())
    detail = " ".join(line.strip() for line in causes[-1].splitlines() if line.strip())
    text = re.sub(r"\s*(full_key|object_type|reference_type)[:=]\s*\S+", "", text)
    detail = re.sub(r"\s*(object_type|reference_type)[:=]\s*\S+", "", detail)
    return text if detail in text or len(causes) == 1 else f"{text} ({detail})"
