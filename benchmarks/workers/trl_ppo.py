"""Worker of benchmarks/ppo.py: PPOTrainer of trl==1.12.0 on token ids. Needs trl alone."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    TrainerCallback,
)
from trl.experimental.ppo import PPOConfig, PPOTrainer

PAD = "<|endoftext|>"  # the end-of-turn token pads by default, and stands in every prompt


class Clock(TrainerCallback):
    """Notes when each iteration ends and what it logged."""

    def __init__(self, clock: str) -> None:
        """Read a clock of the module ``time``."""
        self.clock: Callable[[], float] = getattr(time, clock)
        self.times: list[float] = []
        self.logs: list[dict[str, float]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the time."""
        self.times.append(self.clock())

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Note the numbers."""
        self.logs.append({key: float(value) for key, value in logs.items()})


class Head(nn.Linear):
    """A head in float32 over hidden states of any precision, as ours is."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Map hidden states to scores or values."""
        return super().forward(hidden.float())


def scorer(job: dict[str, Any], lora: LoraConfig, trained: bool) -> PreTrainedModel:
    """Load a base with an adapter and a head: the reward model or the critic."""
    model = AutoModelForSequenceClassification.from_pretrained(
        job["model"], num_labels=1, dtype=getattr(torch, job["dtype"])
    )
    model.requires_grad_(False)
    model.score = Head(model.config.hidden_size, 1, bias=False)
    if trained:
        nn.init.zeros_(model.score.weight)
    inject_adapter_in_model(lora, model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trained and ("lora_" in name or name == "score.weight"))
        if "lora_" in name:
            parameter.data = parameter.data.float()
    return model


def main() -> None:
    """Run the iterations that the job asks for."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(job["threads"])
    torch.set_flush_denormal(True)
    tokenizer = AutoTokenizer.from_pretrained(job["model"], padding_side="left")
    tokenizer.pad_token = PAD
    lora = LoraConfig(
        r=job["rank"], lora_alpha=job["alpha"], target_modules=job["targets"], lora_dropout=0.0
    )
    policy = AutoModelForCausalLM.from_pretrained(job["model"], dtype=getattr(torch, job["dtype"]))
    policy.generation_config.pad_token_id = tokenizer.pad_token_id
    batch, clock = job["batch"], Clock(job["clock"])
    args = PPOConfig(
        output_dir=job["folder"],
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=1,
        num_mini_batches=job["minibatches"],
        num_ppo_epochs=job["epochs"],
        total_episodes=batch * job["iterations"],
        local_rollout_forward_batch_size=batch,
        num_sample_generations=0,
        response_length=job["tokens"],
        stop_token="eos",
        temperature=1.0,
        missing_eos_penalty=1.0,
        kl_coef=job["kl"],
        learning_rate=job["lr"],
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
    )
    trainer = PPOTrainer(
        args=args,
        processing_class=tokenizer,
        model=policy,
        ref_model=None,  # the bare base: the policy with its adapter switched off
        reward_model=scorer(job, lora, trained=False),
        value_model=scorer(job, lora, trained=True),
        train_dataset=Dataset.from_list([{"input_ids": prompt} for prompt in job["prompts"]]),
        peft_config=lora,
        callbacks=[clock],
    )
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    trainer.train()
    trained = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    result = {
        "times": clock.times,
        "loaded": loaded,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "trained": trained,
        "logs": clock.logs,
    }
    Path(sys.argv[2]).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
