"""Worker of benchmarks/ppo.py: PPOModule, in a process of its own to measure its memory."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir

from cai.composition import CONF, schema, typed
from cai.lm.heads import ScalarHead, ScalarModel
from cai.lm.load import load_model
from cai.training.data import Order
from cai.training.iteration import Prompts, Roles
from cai.training.ppo import PPOModule
from cai.training.rollouts import RewardModel
from cai.training.trainer import Fit, fit


def main() -> None:
    """Run the iterations that the job asks for."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    schema()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = typed(compose("config", overrides=job["overrides"]))
    torch.set_num_threads(job["threads"])
    model = load_model(config.model, config.hardware)
    for seed, name in enumerate(("policy", "critic", "pm")):
        model.add_adapter(name, seed)
    reward = RewardModel([ScalarModel(model, "pm", ScalarHead(model.hidden_size, 0))], 0.0, 0.0)
    roles = Roles("policy", None, "critic", ScalarHead(model.hidden_size, None), reward)
    clock: Callable[[], float] = getattr(time, job["clock"])
    times: list[float] = []

    def record(values: Mapping[str, float], step: int) -> None:
        if "score" in values:
            times.append(clock())

    half = len(job["prompts"]) // 2
    prompts = Prompts(job["prompts"][:half], job["prompts"][half:])
    order = Order(config.hardware.micro_tokens, config.seed)
    module = PPOModule(model, roles, prompts, config.rl, order)
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run = Fit("rl", Path(job["folder"]), record, every=config.rl.iterations)
    fit(module, run, config.hardware, config.trainer)
    result = {
        "times": times,
        "loaded": loaded,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "trained": sum(p.numel() for p in module.parameters()),
        "logs": module.history,
    }
    Path(sys.argv[2]).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
