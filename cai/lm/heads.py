"""Scalar heads, and model folders that peft and transformers load without this project."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cai.lm.load import ADAPTER_FILE, TARGETS, LanguageModel

HEAD_KEY = "base_model.model.score.weight"


class ScalarHead(nn.Module):
    """One number from a hidden state: the score of a PM or the value of a critic."""

    def __init__(self, hidden_size: int, seed: int | None) -> None:
        """Draw the weights from ``seed``; without one they start at zero."""
        super().__init__()
        self.offset = 0.0  # taken off: a critic that starts as a PM starts at the PM's mean
        self.score = nn.Linear(hidden_size, 1, bias=False)
        nn.init.zeros_(self.score.weight)
        if seed is not None:
            generator = torch.Generator().manual_seed(seed)
            nn.init.normal_(self.score.weight, std=hidden_size**-0.5, generator=generator)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map hidden states [..., H] of any precision to float32 numbers [...]."""
        return cast(Tensor, self.score(hidden.float()).squeeze(-1) - self.offset)


def save_model(
    model: LanguageModel, name: str | None, folder: Path, head: ScalarHead | None = None
) -> None:
    """Save an adapter and the head that belongs to it, in peft's format.

    Args:
        model: Holds the adapter.
        name: The adapter; ``None`` writes a folder that stands for the bare base.
        folder: Where to; made if need be.
        head: Makes it a sequence classifier with one label.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if name is None:
        (folder / "base.json").write_text(json.dumps({"base": model.config.name}) + "\n")
        return
    state = model.adapter_state(name)
    if head is not None:
        state[HEAD_KEY] = head.score.weight.detach().float().cpu().contiguous()
    save_file(state, folder / ADAPTER_FILE, metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if head is not None else "CAUSAL_LM",
        "base_model_name_or_path": model.config.path or model.config.name,
        "r": model.config.lora_rank,
        "lora_alpha": model.config.lora_alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": TARGETS,
        "modules_to_save": ["score"] if head is not None else None,
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")


def load_head(folder: Path, hidden_size: int) -> ScalarHead:
    """Load the head of a saved preference model or critic."""
    head = ScalarHead(hidden_size, seed=None)
    weight = load_file(folder / ADAPTER_FILE)[HEAD_KEY]
    head.score.weight.data.copy_(weight)
    return head
