"""PPO: ``PPOModule`` against PPOTrainer of trl 1.12.0, one of the last releases that have it.

    python -m venv DIR && DIR/bin/pip install torch trl==1.12.0 peft transformers datasets
    python benchmarks/ppo.py --peer-python DIR/bin/python [--batch 16] [--tokens 48] [--repeats 2]
    python benchmarks/ppo.py --peer-python DIR/bin/python --tokens 128 --start RESULT/model

Both train a LoRA policy and a LoRA critic with its head on the same base in the same precision,
against a frozen reward model and a frozen reference, which is the bare base: same prompts, batch,
longest reply, temperature 1, epochs, minibatches, rate and penalties. Ours keeps one base with four
roles; the peer loads a base each for policy, critic and reward model. Neither recomputes
activations (the peer's loop never does). An iteration is a rollout with all its updates; the clock
runs from the end of the first to the end of the last. Memory is the peak of the whole process,
libraries included; "once loaded" is the same before the first iteration. Runs alternate, each in a
process of its own.

The bare model talks until it is cut off. ``--start`` takes an adapter, such as one of the helpful
stage, and folds it into the base of both sides: replies then end by themselves, most of them long
before the limit, as they do in practice. The peer samples and trains to the limit all the same.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from peft import PeftModel
from side_by_side import (
    add_clock,
    describe,
    median,
    peer_settings,
    run_worker,
    settings,
    spread,
    start_clock,
    table,
)
from transformers import AutoModelForCausalLM, AutoTokenizer

from cai.data.sources import load_corpus
from cai.lm.embedded import embedded_model
from cai.lm.load import load_model

MIB = 1024  # of the kibibytes that the system counts in


def main() -> None:
    """Run both in turn and print samples per second and memory."""
    parser = argparse.ArgumentParser(description="PPO against TRL")
    parser.add_argument("--peer-python", required=True, help="an interpreter with trl==1.12.0")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=48, help="longest reply")
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--dtype", default="bf16", choices=["bf16", "fp32"])
    add_clock(parser)
    parser.add_argument("--start", help="an adapter that becomes part of the base of both sides")
    args = parser.parse_args()
    start_clock(args.clock)
    with tempfile.TemporaryDirectory() as folder:
        folded = args.start and fold(args.start, folder)
        compare(args, ["model=folder", f"model.path={folded}"] if folded else [])


def fold(adapter: str, folder: str) -> str:
    """Write the default model with an adapter folded into its weights; return the folder."""
    base = AutoModelForCausalLM.from_pretrained(embedded_model(), dtype=torch.bfloat16)
    PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(folder)
    AutoTokenizer.from_pretrained(embedded_model()).save_pretrained(folder)
    return folder


def compare(args: argparse.Namespace, model_keys: list[str]) -> None:
    """Run both sides on a model and print what was measured."""
    overrides = [
        *model_keys,
        "stage=rl", "tracking=off", "hardware=cpu", f"model.dtype={args.dtype}",
        f"rl.iterations={args.iterations}", f"rl.rollout.prompts={args.batch}",
        f"rl.rollout.reply_tokens={args.tokens}", "rl.rollout.red_team_share=0.5",
        "rl.rollout.temperature=1.0", "rl.rollout.min_reply_tokens=0",
        "rl.reward.scale=false", "rl.ppo.stop_kl=null",
        "rl.critic.warmup_iterations=0", "rl.watch.evaluate_every=100", "rl.watch.guard=off",
    ]  # fmt: skip
    config = settings(*overrides)
    model = load_model(config.model, config.hardware)
    corpus = load_corpus(config.data)
    half = args.batch // 2
    records = [*corpus.red_team.train[:half], *(e.prompt for e in corpus.helpful.train[:half])]
    job = {
        **peer_settings(config.model, args.clock),
        "model": config.model.path or str(embedded_model()),
        "overrides": overrides,
        "prompts": [model.chat.prompt(record.conversation) for record in records],
        "batch": args.batch,
        "tokens": args.tokens,
        "iterations": args.iterations,
        "minibatches": config.rl.ppo.minibatches,
        "epochs": config.rl.ppo.epochs,
        "lr": config.rl.optimizer.lr,
        "kl": config.rl.kl.coefficient,
    }
    runs: dict[str, list[dict[str, Any]]] = {"ours": [], "TRL": []}
    for _ in range(args.repeats):
        runs["TRL"].append(run_worker(args.peer_python, "workers/trl_ppo.py", job))
        runs["ours"].append(run_worker(sys.executable, "workers/cai_ppo.py", job))
    mean = sum(map(len, job["prompts"])) / len(job["prompts"])
    print(
        f"{describe(args.dtype, args.clock)}; batch {args.batch}, "
        f"prompts of {mean:.0f} tokens on average, replies of at most {args.tokens}, ours of "
        f"{median([log['length'] for run in runs['ours'] for log in run['logs']]):.0f}"
    )
    report(runs, args.batch)


def report(runs: Mapping[str, Sequence[dict[str, Any]]], batch: int) -> None:
    """Print a table and the two ratios."""
    rates = {
        name: [batch * (len(run["times"]) - 1) / (run["times"][-1] - run["times"][0]) for run in r]
        for name, r in runs.items()
    }
    peaks = {name: [run["peak"] / MIB for run in r] for name, r in runs.items()}
    rows = [
        [
            name,
            spread(rates[name], 2),
            spread(peaks[name], 0),
            f"{median([run['loaded'] / MIB for run in r]):.0f}",
            f"{r[0]['trained']:,}",
        ]
        for name, r in runs.items()
    ]
    head = ["", "samples per second", "peak MiB", "once loaded", "trained weights"]
    print(table(head, rows))
    print(
        f"samples per second: ratio {median(rates['ours']) / median(rates['TRL']):.2f}; "
        f"peak memory: ratio {median(peaks['ours']) / median(peaks['TRL']):.2f}"
    )


if __name__ == "__main__":
    main()
