"""Judges that somebody trained: a result of the pm stage, or any sequence classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from cai.config import HardwareConfig, JudgeModelsConfig
from cai.config.content import located
from cai.dialogue import assistant, to_messages
from cai.errors import UserError
from cai.judging.judge import Judged, ScoringJudge
from cai.judging.trained import TrainedJudge
from cai.lm.chat import encode
from cai.lm.device import torch_device
from cai.training.saved import find_saved, load_saved


@dataclass(frozen=True)
class ByAxis:
    """One scoring judge for each axis, which may be the same."""

    judges: Mapping[str, ScoringJudge]

    def score(self, axis: str, replies: Sequence[Judged]) -> list[float]:
        """Score replies by the judge of an axis."""
        return self.judges[axis].score(axis, replies)


@dataclass(frozen=True)
class Classifier:
    """A sequence classifier with one label, with its own tokenizer and chat template."""

    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    batch_size: int

    def score(self, axis: str, replies: Sequence[Judged]) -> list[float]:
        """Score whole dialogues; of one that is too long the end is read."""
        ids = [self._ids(reply) for reply in replies]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        scores = [0.0] * len(ids)
        size = self.batch_size if self.tokenizer.pad_token_id is not None else 1
        for start in range(0, len(order), size):
            part = order[start : start + size]
            for i, score in zip(part, self._read([ids[i] for i in part]), strict=True):
                scores[i] = score
        return scores

    def _ids(self, judged: Judged) -> list[int]:
        talk = to_messages((*judged.conversation, assistant(judged.reply)))
        text = str(self.tokenizer.apply_chat_template(talk, tokenize=False))
        ids = encode(self.tokenizer, text)
        limit = getattr(self.network.config, "max_position_embeddings", None) or len(ids)
        return ids[-limit:]

    @torch.no_grad()
    def _read(self, rows: Sequence[list[int]]) -> list[float]:
        batch = self.tokenizer.pad({"input_ids": list(rows)}, return_tensors="pt")
        inputs = {name: tensor.to(self.network.device) for name, tensor in batch.items()}
        logits = self.network(**inputs).logits
        return [float(x) for x in logits[:, 0].float()]


def load_folder(config: JudgeModelsConfig, hardware: HardwareConfig) -> ByAxis:
    """Load the models that the settings name; one for both axes is loaded once.

    Raises:
        UserError: If one is not a reward model.
    """
    paths = config.paths
    loaded = {path: _load(path, config, hardware) for path in dict.fromkeys(paths.values())}
    return ByAxis({axis: loaded[path] for axis, path in paths.items()})


def _load(path: str, config: JudgeModelsConfig, hardware: HardwareConfig) -> ScoringJudge:
    folder = Path(located(path))
    if (saved := find_saved(folder)) is not None:
        model, reward = load_saved(saved, hardware)
        return TrainedJudge(model, dict.fromkeys(config.paths, reward), hardware.micro_tokens)
    if not folder.exists() and config.revision is None:
        raise UserError(
            f"judge.models names {path!r}, which is no folder; if it is a model of a hub, give its "
            "commit as judge.models.revision"
        )
    tokenizer, network = _pretrained(path, config.revision)
    if network.config.pad_token_id is None:
        network.config.pad_token_id = tokenizer.pad_token_id
    if network.config.pad_token_id != tokenizer.pad_token_id:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(network.config.pad_token_id)
    network.eval().to(torch_device(hardware))
    return Classifier(network, tokenizer, config.batch_size)


def _pretrained(path: str, revision: str | None) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    options: dict[str, Any] = {"revision": revision or "main", "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, **options)
        loaded: Any = AutoModelForSequenceClassification.from_pretrained(
            path, use_safetensors=True, output_loading_info=True, **options
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UserError(
            f"judge.models: {path!r} can't be loaded as a reward model ({first}): give a result of "
            "the pm stage, or a sequence classifier saved by transformers as safetensors"
        ) from error
    network, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise UserError(
            f"judge.models: {path!r} is no sequence classifier, for it has no weights for "
            f"{missing[0]}: give a reward model"
        )
    if network.config.num_labels != 1:
        raise UserError(
            f"judge.models: {path!r} gives {network.config.num_labels} numbers to a reply, and a "
            "reward model gives one: give another model"
        )
    if tokenizer.chat_template is None:
        raise UserError(
            f"judge.models: the tokenizer of {path!r} has no chat template, so dialogues can't be "
            "put to it: save one with it"
        )
    return tokenizer, network
