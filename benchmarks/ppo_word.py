"""PPO with a programmed reward: SmolLM2 learns to say "you".

    python benchmarks/ppo_word.py [--iterations 30] [--rollouts 16] [--tokens 24] [--vllm WHERE]

A reply scores 1 if it has one of the words, as one in seven has at first, and 0 otherwise; the
preference model of ``PPOModule`` is replaced by this rule. Prompts are the shortest built-in ones,
the reference is the bare model, and the KL to it is reported per reply, in nats (mean of
log pi/pi_ref over the sampled replies).
Afterwards the trained policy answers prompts that it was not trained on, beside the bare model.
Prints a table, keeps the curves in ``figures/ppo_word.json`` under the name of the sampler, and
draws all that are there: with ``--vllm``, run afterwards, a server samples and is drawn beside the
local sampler.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from side_by_side import settings, table, train_to_the_end
from torch import Tensor

from cai.config import Config
from cai.data.sources import load_corpus
from cai.lm.generate import Sampling
from cai.lm.heads import ScalarHead
from cai.lm.load import LanguageModel
from cai.lm.packing import Tree
from cai.pipeline.stage import Job
from cai.sampling.speaker import load_speaker
from cai.tracking import Tracker
from cai.training.data import Order
from cai.training.iteration import Prompts as PPOPrompts
from cai.training.iteration import Roles
from cai.training.ppo import PPOModule
from cai.training.rollouts import RewardModel

Prompts = list[list[int]]
COLOURS = ("#0072b2", "#d55e00")
"""Of the runs, in the order in which they are drawn."""
SHOWN = ("score", "kl", "sampler_gap")


class WordReward:
    """Scores a reply 1 if it has one of the words, else 0."""

    def __init__(self, model: LanguageModel, words: Sequence[str]) -> None:
        """Look for whole words, in either case."""
        self.model = model
        self.pattern = re.compile(rf"\b({'|'.join(map(re.escape, words))})\b", re.IGNORECASE)

    def __call__(self, trees: Sequence[Tree]) -> Tensor:
        """Score the only reply of each tree: [B]."""
        texts = [self.model.chat.decode(tree.responses[0]) for tree in trees]
        return torch.tensor([float(bool(self.pattern.search(text))) for text in texts])


def shortest_prompts(config: Config, model: LanguageModel, n: int) -> tuple[Prompts, Prompts]:
    """Return ``n`` training prompts and ``n`` others, red-team and helpful in turn."""
    corpus = load_corpus(config.data)
    kinds = (corpus.red_team.train, [e.prompt for e in corpus.helpful.train])
    sets: tuple[Prompts, Prompts] = ([], [])
    for records in kinds:
        encoded = sorted((model.chat.prompt(r.conversation) for r in records), key=len)[:n]
        sets[0].extend(encoded[0::2])
        sets[1].extend(encoded[1::2])
    return sets


def rate_of(
    model: LanguageModel, adapter: str | None, prompts: Prompts, score: WordReward, tokens: int
) -> float:
    """Return the share of replies to prompts that have the word."""
    sampling = Sampling(tokens, 2)
    replies = model.sampler.generate(adapter, prompts, range(len(prompts)), sampling)
    trees = [Tree(p, [reply.tokens]) for p, reply in zip(prompts, replies, strict=True)]
    return float(score(trees).mean())


def draw(runs: dict[str, dict[str, list[float]]], title: str) -> str:
    """Write score and KL per iteration of each run as two panels of an SVG."""
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 660 470" font-family="sans-serif" '
        'font-size="13">',
        '<rect width="660" height="470" fill="white"/>',
        f'<text x="70" y="28" font-size="16">{title}</text>',
    ]
    for n, (name, colour) in enumerate(zip(runs, COLOURS, strict=False)):
        parts.append(f'<text x="{500 + 70 * n}" y="28" fill="{colour}">{name}</text>')
    top = max(1.0, *(value for run in runs.values() for value in run["kl"]))
    parts += _panel([run["score"] for run in runs.values()], 1.0, (60, "share with the word"))
    parts += _panel([run["kl"] for run in runs.values()], top, (270, "KL, nats per reply"))
    parts.append('<text x="350" y="460" text-anchor="middle">iteration</text>')
    return "\n".join([*parts, "</svg>", ""])


def _panel(runs: Sequence[Sequence[float]], high: float, look: tuple[int, str]) -> list[str]:
    """Draw values as dots and their running mean as a line, a colour for each run."""
    top, label = look
    left, width, height = 70, 560, 145
    longest = max(map(len, runs))

    def at(step: float, value: float) -> tuple[str, str]:
        x = left + width * step / max(1, longest - 1)
        return f"{x:.1f}", f"{top + height * (1 - value / high):.1f}"

    parts = [f'<text x="{left}" y="{top - 8}" fill="#555">{label}</text>']
    for k in range(5):
        y, mark = top + height * (1 - k / 4), f"{high * k / 4:.2g}"
        parts.append(f'<line x1="{left}" y1="{y}" x2="{left + width}" y2="{y}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4}" text-anchor="end">{mark}</text>')
    for step in range(0, longest, 5):
        x, _ = at(step, 0)
        parts.append(f'<text x="{x}" y="{top + height + 18}" text-anchor="middle">{step}</text>')
    for values, colour in zip(runs, COLOURS, strict=False):
        for step, value in enumerate(values):
            x, y_of = at(step, value)
            parts.append(f'<circle cx="{x}" cy="{y_of}" r="3" fill="{colour}" fill-opacity="0.4"/>')
        means = [mean(values[max(0, step - 4) : step + 1]) for step in range(len(values))]
        points = " ".join(",".join(at(step, value)) for step, value in enumerate(means))
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
    return parts


def mean(values: Sequence[float]) -> float:
    """Return the arithmetic mean."""
    return sum(values) / len(values)


def train(config: Config, model: LanguageModel, prompts: Prompts, score: WordReward) -> PPOModule:
    """Run PPO with the rule in place of a preference model."""
    for seed, name in enumerate(("policy", "critic")):
        model.add_adapter(name, seed)
    head = ScalarHead(model.hidden_size, None)
    roles = Roles("policy", None, "critic", head, RewardModel([], 0.0, 0.0))
    order = Order(config.hardware.micro_tokens, config.seed)
    module = PPOModule(model, roles, PPOPrompts(prompts, prompts), config.rl, order)
    module.score = score
    train_to_the_end(module, config)
    return module


def config_of(args: argparse.Namespace) -> Config:
    """Compose the config of a run; what PPO's settings default to elsewhere has no say here."""
    where = "url" if str(args.vllm).startswith("http") else "python"
    return settings(
        "stage=rl", "hardware=cpu", f"seed={args.seed}", f"rl.iterations={args.iterations}",
        f"rl.rollout.prompts={args.rollouts}", f"rl.rollout.reply_tokens={args.tokens}",
        "rl.rollout.temperature=1.0", f"rl.optimizer.lr={args.lr}",
        f"rl.critic.optimizer.lr={args.lr}", f"rl.kl.coefficient={args.kl}",
        "rl.rollout.red_team_share=1.0", "rl.reward.scale=false", "rl.reward.missing_eos_penalty=0",
        "rl.critic.start=zero", "rl.critic.warmup_iterations=0", "rl.advantage.gae_lambda=0.95",
        "rl.ppo.epochs=1", "rl.ppo.minibatches=2", "rl.watch.evaluate_every=1000",
        "rl.watch.guard=off",
        *(["sampler=vllm", f"sampler.{where}={args.vllm}", "sampler.timeout=1800",
           "sampler.requests=16"] if args.vllm else []),
        *(["model=folder", f"model.path={args.model}", "model.dtype=fp32", "model.context=1024"]
          if args.model else []),
    )  # fmt: skip


def main() -> None:
    """Train, print a table, draw the curves."""
    parser = argparse.ArgumentParser(description="PPO with a programmed reward")
    parser.add_argument("--iterations", type=int, default=30)
    parser.add_argument("--rollouts", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--kl", type=float, default=0.05, help="coefficient, per nat")
    parser.add_argument(
        "--vllm", help="a server with the default model, or an interpreter with vLLM"
    )
    parser.add_argument("--words", nargs="+", default=["you"])
    parser.add_argument("--model", help="a model folder instead of SmolLM2")
    parser.add_argument("--seed", type=int, default=0)
    default = Path(__file__).parent / "figures" / "ppo_word.svg"
    parser.add_argument("--out", type=Path, default=default, help="where the figure goes")
    args = parser.parse_args()
    config = config_of(args)
    job = Job(config.hardware, config.trainer, Tracker("word", args.out.parent), config.sampler)
    model = load_speaker(config.model, job)
    score = WordReward(model, args.words)
    training, others = shortest_prompts(config, model, 64)
    start = time.perf_counter()
    module = train(config, model, training, score)
    report(module.history, time.perf_counter() - start)
    words = " or ".join(f"“{word}”" for word in args.words)
    title = f"PPO on {config.model.name}: replies that say {words}"
    keep(module.history, config.sampler.engine.value, args.out, title)
    for name, adapter in (("bare model", None), ("policy", "policy")):
        share = rate_of(model, adapter, others, score, args.tokens)
        print(f"{name}: {share:.2f} of {len(others)} replies to other prompts have the word")


def keep(history: Sequence[dict[str, float]], engine: str, out: Path, title: str) -> None:
    """Keep the curves beside those of the other sampler, and draw them all."""
    kept = out.with_suffix(".json")
    runs = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    runs[engine] = {key: [round(row[key], 4) for row in history] for key in SHOWN}
    runs = dict(sorted(runs.items()))
    out.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
    out.write_text(draw(runs, title), encoding="utf-8")
    print(f"figure: {out}")


def report(history: Sequence[dict[str, float]], seconds: float) -> None:
    """Print the means over stretches of five iterations."""
    rows = []
    for first in range(0, len(history), 5):
        part = history[first : first + 5]
        keys = ("score", "kl", "k3", "length", "sampler_gap")
        numbers = [mean([row[key] for row in part]) for key in keys]
        shown = [*(f"{n:.2f}" for n in numbers[:-1]), f"{numbers[-1]:.1e}"]
        rows.append([f"{first}-{first + len(part) - 1}", *shown])
    names = ["score", "KL, nats per reply", "the same by k3", "tokens", "sampler gap, nats"]
    print(table(["iterations", *names], rows))
    print(
        f"{len(history)} iterations in {seconds / 60:.1f} minutes, "
        f"{torch.get_num_threads()} threads"
    )


if __name__ == "__main__":
    main()
