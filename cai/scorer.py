"""A preference model that the pm stage saved, made ready for anyone's dialogues."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cai.composition import hardware_node
from cai.config import Dtype
from cai.dialogue import Conversation, Role, read_messages, read_prompt
from cai.errors import UserError
from cai.lm.language_model import LanguageModel
from cai.lm.packing import Tree
from cai.training.rollouts import RewardModel
from cai.training.saved import find_saved, load_saved


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


def load_scorer(
    folder: Path, hardware: str, micro_tokens: int | None = None, dtype: Dtype | None = None
) -> Scorer:
    """Load a PM that the pm stage saved, on the base that it was trained on.

    Args:
        folder: The stage's result, or one model in it.
        hardware: A file of conf/hardware.
        micro_tokens: Padded tokens in one forward pass, if not those of that file.
        dtype: Of the base, if not that in which it was trained.

    Raises:
        UserError: If there is no PM, or its base can't be had or is not the same any more.
    """
    saved = find_saved(folder)
    if saved is None:
        raise UserError(
            f"--pm={folder} is no preference model: give a folder outputs/artifacts/pm-..., or the "
            "folder model or twin in it"
        )
    changes = [] if micro_tokens is None else [f"hardware.micro_tokens={micro_tokens}"]
    device = hardware_node(hardware, changes)
    model, reward = load_saved(saved, device, dtype)
    files = saved.pm.record()["files"]
    how = [str(model.device), device.micro_tokens, model.config.dtype.value]
    key = hashlib.sha256(json.dumps([files, saved.name, *how]).encode()).hexdigest()
    return Scorer(model, reward, device.micro_tokens, key)


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
