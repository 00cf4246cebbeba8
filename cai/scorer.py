"""A preference model that the pm stage saved, made ready for anyone's dialogues."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cai.composition import CONF
from cai.config import HardwareConfig, ModelConfig, ModelSource
from cai.contracts.preferences import PreferenceModels
from cai.dialogue import Conversation, Role, read_messages, read_prompt
from cai.errors import UserError
from cai.files import digest_of_folder
from cai.lm.heads import has_scalar_model
from cai.lm.load import LanguageModel, load_model
from cai.lm.packing import Tree
from cai.pipeline.stage import RECORD
from cai.training.reward import load_reward_model
from cai.training.rollouts import RewardModel


@dataclass(frozen=True)
class Scorer:
    """A preference model on its base.

    Attributes:
        model: The base with the PM's adapters.
        reward: The PM.
        tokens: Padded tokens in one forward pass.
        key: Digest of everything that the scores depend on.
    """

    model: LanguageModel
    reward: RewardModel
    tokens: int
    key: str

    def tree(self, row: object) -> Tree:
        """Encode a row.

        Raises:
            ValueError: Says what is wrong with it.
        """
        prompt, reply = read_dialogue(row)
        try:
            tree = Tree(self.model.chat.prompt(prompt), [self.model.chat.response(reply)])
        except UserError as error:
            raise ValueError(error) from error
        context = self.model.chat.context
        if tree.length > context:
            raise ValueError(f"prompt and reply have {tree.length} tokens, more than {context}")
        return tree

    def scored(self, rows: Sequence[dict[str, Any]]) -> list[str]:
        """Return rows with their scores as lines of JSON."""
        scores = self.reward.score([self.tree(row) for row in rows], self.tokens)
        return [
            json.dumps({**row, "score": score}, ensure_ascii=False) + "\n"
            for row, score in zip(rows, scores.tolist(), strict=True)
        ]


def load_scorer(folder: Path, hardware: str, micro_tokens: int | None = None) -> Scorer:
    """Load a PM that the pm stage saved, on the base that it was trained on.

    Args:
        folder: The stage's result, or one model in it.
        hardware: A file of conf/hardware.
        micro_tokens: Padded tokens in one forward pass, if not those of that file.

    Raises:
        UserError: If there is no PM, or its base can't be had or is not the same any more.
    """
    root, name = _find(folder)
    pm = PreferenceModels("pm", "", root)
    record = pm.record()
    recipe = record["recipe"]
    own = recipe["settings"]["pm"].get("base")
    try:
        config = _typed(ModelConfig, OmegaConf.create(own or recipe["settings"]["model"]))
    except OmegaConfBaseException as error:
        raise UserError(
            f"{root / RECORD} describes a base model in a way that this version can't read "
            f"({str(error).splitlines()[0]}): make the preference model again with stage=pm"
        ) from error
    device = _typed(HardwareConfig, _hardware(hardware, micro_tokens))
    if config.source is ModelSource.folder:
        place = "pm.base.path" if own else "model.path"
        if digest_of_folder(Path(config.path), place) != recipe["content"][place]:
            raise UserError(f"the base model in {config.path} has changed since {root} was trained")
    model = load_model(config, device)
    reward = load_reward_model(device, model, pm, name)
    assert reward is not None
    identity = [record["files"], name, str(model.device), device.micro_tokens]
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
    return Scorer(model, reward, device.micro_tokens, key)


def _hardware(name: str, micro_tokens: int | None) -> Any:
    """Compose the node as the command of the pipeline does."""
    changes = [] if micro_tokens is None else [f"hardware.micro_tokens={micro_tokens}"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(overrides=[f"+hardware={name}", *changes]).hardware


def _find(folder: Path) -> tuple[Path, str]:
    """Return the result of the pm stage and the name of the model in it."""
    for root, name in ((folder, "model"), (folder.resolve().parent, folder.resolve().name)):
        found = (root / RECORD).is_file() and has_scalar_model(root / name)
        if found and PreferenceModels("pm", "", root).record()["stage"] == "pm":
            return root, name
    raise UserError(
        f"--pm={folder} is no preference model: give a folder outputs/artifacts/pm-..., or the "
        "folder model or twin in it"
    )


def _typed(schema: type[Any], values: Any) -> Any:
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), values))


def read_dialogue(row: object) -> tuple[Conversation, str]:
    """Take the prompt and the reply out of a row.

    Raises:
        ValueError: Says what the row lacks.
    """
    if not isinstance(row, dict):
        raise ValueError("a row must be a JSON object")
    if "response" not in row:
        if "messages" not in row:
            raise ValueError("a row needs 'messages', or 'prompt' and 'response'")
        talk = read_messages(row["messages"])
        if talk[-1].role is not Role.ASSISTANT:
            raise ValueError("the last of 'messages' must be the assistant's")
        return talk[:-1], talk[-1].text
    if not isinstance(row["response"], str):
        raise ValueError("'response' must be a text")
    before = row["prompt"] if "prompt" in row else row.get("messages")
    return read_prompt(before), row["response"].strip()
