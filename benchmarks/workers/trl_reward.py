"""Worker of benchmarks/preference.py: TRL's RewardTrainer on token ids. Needs trl alone."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
from trl import RewardConfig, RewardTrainer

PAD = "<|endoftext|>"  # the end-of-turn token pads by default, and is what scores are read at


class Clock(TrainerCallback):
    """Notes when each step ends and its loss."""

    def __init__(self, clock: str) -> None:
        """Read a clock of the module ``time``."""
        self.clock: Callable[[], float] = getattr(time, clock)
        self.times: list[float] = []
        self.losses: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the time."""
        self.times.append(self.clock())

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Note the loss."""
        if "loss" in logs:
            self.losses.append(float(logs["loss"]))


class Head(nn.Linear):
    """A head in float32 over hidden states of any precision, as ours is."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Map hidden states to scores."""
        return super().forward(hidden.float())


def main() -> None:
    """Train one epoch as the job says and score what was held out."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(job["threads"])
    torch.set_flush_denormal(True)
    model = AutoModelForSequenceClassification.from_pretrained(
        job["model"], num_labels=1, dtype=getattr(torch, job["dtype"])
    )
    model.score = Head(model.config.hidden_size, 1, bias=False)
    lora = LoraConfig(
        r=job["rank"],
        lora_alpha=job["alpha"],
        target_modules=job["targets"],
        lora_dropout=0.0,
        task_type="SEQ_CLS",
        modules_to_save=["score"],
    )
    model = get_peft_model(model, lora)
    names = {
        key.replace(".default.", ".").replace("score.modules_to_save.", "score."): parameter
        for key, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    for key, value in load_file(job["adapter"]).items():
        names[key].data.copy_(value)
    clock = Clock(job["clock"])
    args = RewardConfig(
        output_dir=job["folder"],
        per_device_train_batch_size=job["batch"],
        num_train_epochs=1,
        learning_rate=job["lr"],
        lr_scheduler_type="constant",
        adam_beta2=0.95,
        max_grad_norm=1.0,
        weight_decay=0.0,
        max_length=None,
        pad_token=PAD,
        train_sampling_strategy="sequential",
        gradient_checkpointing=job["checkpointing"],
        bf16=False,
        use_cpu=True,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
    )
    trainer = RewardTrainer(
        model=model,
        args=args,
        train_dataset=Dataset.from_list(job["rows"]),
        processing_class=AutoTokenizer.from_pretrained(job["model"]),
        callbacks=[clock],
    )
    trainer.train()
    margins = held_out_margins(model, job["held_out"]) if job["held_out"] else []
    result = {"times": clock.times, "losses": clock.losses, "margins": margins}
    Path(sys.argv[2]).write_text(json.dumps(result), encoding="utf-8")


@torch.inference_mode()
def held_out_margins(model: nn.Module, rows: list[dict[str, list[int]]]) -> list[float]:
    """Return by how much the chosen reply of each pair is ahead."""
    model.eval()
    scores = [
        [float(model(input_ids=torch.tensor([row[side]])).logits) for row in rows]
        for side in ("chosen_ids", "rejected_ids")
    ]
    return [chosen - rejected for chosen, rejected in zip(*scores, strict=True)]


if __name__ == "__main__":
    main()
