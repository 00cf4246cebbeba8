"""Sampling with ``cai.lm.generate`` against ``generate`` of transformers, in one process.

    python benchmarks/generation.py [--dtype fp32] [--batch 32] [--tokens 96] [--repeats 3]

Same weights, prompts, batch size, precision, threads and length; both sample at temperature 1 and
use a key-value cache. Prompts are sorted by length, so that the peer's batches, padded on the left,
are as tight as they can be. A token counts if it belongs to a reply: up to its stop token, which
is included. "one batch" hands over as many prompts as fit a batch, "queue" four times as many: ours
refills places that become free, the peer's batch waits for its longest reply. In the last row the
stop token is barred, so that all replies are equally long and dropping or refilling rows saves
nothing. The two draw different random numbers, so their replies differ; their mean length is shown.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from side_by_side import (
    Clock,
    add_clock,
    describe,
    median,
    settings,
    spread,
    start_clock,
    table,
    timed,
)

from cai.data.sources import load_corpus
from cai.lm.backbone import causal_lm
from cai.lm.generate import Sampling, generate
from cai.lm.load import LanguageModel, load_model


class Task(NamedTuple):
    """What both sides are asked to do."""

    name: str
    prompts: Sequence[Sequence[int]]
    tokens: int
    barred: bool


def ours(model: LanguageModel, task: Task, batch: int, seed: int) -> list[int]:
    """Sample with this project and return the length of every reply."""
    sampling = Sampling(task.tokens, task.tokens if task.barred else 0)
    seeds = [seed * 100_000 + i for i in range(len(task.prompts))]
    replies = generate(
        model.network, task.prompts, seeds, sampling, model.stop_ids, batch_size=batch
    )
    return [len(reply.tokens) for reply in replies]


def peers(model: LanguageModel, task: Task, batch: int, seed: int) -> list[int]:
    """Sample with transformers, batch after batch, and return the length of every reply."""
    torch.manual_seed(seed)
    network = causal_lm(model.network)
    ours = network.config._attn_implementation
    network.set_attn_implementation("sdpa")
    lengths: list[int] = []
    for start in range(0, len(task.prompts), batch):
        lengths += _peer_batch(model, task, task.prompts[start : start + batch])
    network.set_attn_implementation(ours)
    return lengths


@torch.inference_mode()
def _peer_batch(model: LanguageModel, task: Task, prompts: Sequence[Sequence[int]]) -> list[int]:
    width = max(map(len, prompts))
    stop = model.chat.stop_id
    ids = torch.full((len(prompts), width), stop)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    out = cast(Any, model.network).generate(
        input_ids=ids,
        attention_mask=mask,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=task.tokens,
        min_new_tokens=task.tokens if task.barred else None,
        eos_token_id=stop,
        pad_token_id=stop,
    )
    replies = out[:, width:]
    ended = (replies == stop).int().cumsum(-1) - (replies == stop).int()
    return [int(n) for n in (ended == 0).sum(-1)]


def compare(model: LanguageModel, task: Task, batch: int, repeats: int, clock: Clock) -> list[str]:
    """Time both sides in turn and write a row."""
    rates: dict[str, list[float]] = {"ours": [], "peer": []}
    lengths: dict[str, list[int]] = {"ours": [], "peer": []}
    sides = {"ours": ours, "peer": peers}
    for repeat in range(repeats):
        for name, side in sides.items() if repeat % 2 == 0 else reversed(sides.items()):
            seconds, counts = timed(clock, partial(side, model, task, batch, repeat))
            rates[name].append(sum(counts) / seconds)
            lengths[name] += counts
    means = [sum(lengths[name]) / len(lengths[name]) for name in sides]
    ratio = median(rates["ours"]) / median(rates["peer"])
    return [
        task.name,
        str(len(task.prompts)),
        f"{means[0]:.0f} / {means[1]:.0f}",
        spread(rates["ours"], 0),
        spread(rates["peer"], 0),
        f"{ratio:.2f}",
    ]


def main() -> None:
    """Compare one batch, a queue, and replies of equal length."""
    parser = argparse.ArgumentParser(description="sampling against transformers")
    parser.add_argument("--dtype", default="bf16", choices=["bf16", "fp32"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=96, help="longest reply")
    parser.add_argument("--repeats", type=int, default=3)
    add_clock(parser)
    args = parser.parse_args()
    clock = start_clock(args.clock)
    config = settings("stage=rl", f"model.dtype={args.dtype}")
    model = load_model(config.model, config.hardware)
    corpus = load_corpus(config.data)
    records = [*corpus.red_team.train, *(e.prompt for e in corpus.helpful.train)]
    prompts = [model.chat.prompt(record.conversation) for record in records]
    step = len(prompts) // (4 * args.batch) or 1
    queue = sorted(prompts[::step][: 4 * args.batch], key=len)
    one = queue[::4]
    tasks = [
        Task("one batch", one, args.tokens, False),
        Task("queue", queue, args.tokens, False),
        Task("one batch, equal lengths", one, args.tokens, True),
    ]
    warm = Task("warm-up", one, 4, True)
    ours(model, warm, args.batch, 0)
    peers(model, warm, args.batch, 0)
    rows = [compare(model, task, args.batch, args.repeats, clock) for task in tasks]
    print(f"{describe(args.dtype, args.clock)}, batch {args.batch}")
    print(
        table(
            [
                "reply tokens per second",
                "prompts",
                "mean length ours / peer",
                "ours",
                "transformers",
                "ratio",
            ],
            rows,
        )
    )


if __name__ == "__main__":
    main()
