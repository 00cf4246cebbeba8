"""Worker of benchmarks/sft.py: TRL's SFTTrainer on token ids. Needs trl, not this project."""

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
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer


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


def main() -> None:
    """Train one epoch as the job says."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(job["threads"])
    torch.set_flush_denormal(True)
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=getattr(torch, job["dtype"]))
    lora = LoraConfig(
        r=job["rank"],
        lora_alpha=job["alpha"],
        target_modules=job["targets"],
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(model, lora)
    start = load_file(job["adapter"])
    names = {key.replace(".default.", "."): p for key, p in model.named_parameters()}
    for key, value in start.items():
        names[key].data.copy_(value)
    clock = Clock(job["clock"])
    args = SFTConfig(
        output_dir=job["folder"],
        per_device_train_batch_size=job["batch"],
        num_train_epochs=1,
        learning_rate=job["lr"],
        lr_scheduler_type="constant",
        adam_beta2=0.95,
        max_grad_norm=1.0,
        weight_decay=0.0,
        completion_only_loss=True,
        max_length=None,
        train_sampling_strategy="sequential",
        gradient_checkpointing=job["checkpointing"],
        bf16=False,
        use_cpu=True,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
    )
    trainer = SFTTrainer(
        model=model,
        args=args,
        train_dataset=Dataset.from_list(job["rows"]),
        processing_class=AutoTokenizer.from_pretrained(job["model"]),
        callbacks=[clock],
    )
    trainer.train()
    dtypes = sorted({str(p.dtype) for p in model.parameters() if p.requires_grad})
    result = {"times": clock.times, "losses": clock.losses, "trained": dtypes}
    Path(sys.argv[2]).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
