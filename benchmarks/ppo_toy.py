"""PPO on a language small enough to know the answer: two words, at most three tokens.

A policy that maximises E[score] - beta KL(pi || pi_ref) is pi* ~ pi_ref exp(score / beta). All 15
replies can be listed, so the distance to it is exact. Policy and critic are tables in float64;
everything else is ``cai.algorithms``. Writes learning curves and prints the final distances:

    python benchmarks/ppo_toy.py
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from cai.algorithms import masked, ppo

WORDS, EOS, LENGTH = 2, 2, 3
PREFIXES = 2**LENGTH - 1
BETA = 0.5
BATCH, ITERATIONS, EPOCHS, RATE = 256, 300, 4, 0.03
GOAL = 0.02
SEEDS = range(5)
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")


class Problem(NamedTuple):
    """The reference's logits [prefix, token], all replies [N, T], their masks and scores."""

    reference: Tensor
    tokens: Tensor
    mask: Tensor
    scores: Tensor


class Rollout(NamedTuple):
    """Sampled replies [B, T], which tokens are theirs, and the prefix before each token."""

    tokens: Tensor
    mask: Tensor
    prefix: Tensor


def prefixes(tokens: Tensor) -> Tensor:
    """Number the prefix before each token [N, T]; the empty one is 0, children of i 2i + 1, 2i + 2.

    Tokens after the end get any number in range.
    """
    columns = [torch.zeros_like(tokens[:, 0])]
    for t in range(LENGTH - 1):
        columns.append((2 * columns[-1] + 1 + tokens[:, t]).clamp(max=PREFIXES - 1))
    return torch.stack(columns, dim=1)


def problem(seed: int) -> Problem:
    """Draw a reference and scores, and list the replies."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.cartesian_prod(*[torch.arange(WORDS + 1)] * LENGTH)
    mask = (rows == EOS).long().cumsum(-1) - (rows == EOS).long() == 0
    # After the end only the end is written, so that each reply is listed once.
    once = ((rows == EOS) | mask).all(-1)
    tokens, mask = rows[once], mask[once]
    return Problem(
        reference=0.5 * torch.randn(PREFIXES, WORDS + 1, generator=generator, dtype=torch.float64),
        tokens=tokens,
        mask=mask,
        scores=torch.randn(len(tokens), generator=generator, dtype=torch.float64),
    )


def log_probs(logits: Tensor, tokens: Tensor, prefix: Tensor) -> Tensor:
    """Log-probability of each token, [N, T]."""
    return F.log_softmax(logits, dim=-1)[prefix, tokens]


def reply_log_probs(logits: Tensor, world: Problem) -> Tensor:
    """Exact log-probability of every reply, [N]."""
    each = log_probs(logits, world.tokens, prefixes(world.tokens))
    return masked.masked_sum(each, world.mask, -1)


def optimum(world: Problem) -> Tensor:
    """The best policy's probability of every reply, [N]."""
    return F.softmax(reply_log_probs(world.reference, world) + world.scores / BETA, dim=0)


def distance(logits: Tensor, world: Problem) -> float:
    """Total variation between the policy and the best one, in [0, 1]."""
    gap = reply_log_probs(logits, world).exp() - optimum(world)
    return 0.5 * gap.abs().sum().item()


def sample(logits: Tensor, generator: torch.Generator) -> Rollout:
    """Draw replies token by token; what follows the end is padding."""
    chances = F.softmax(logits, dim=-1)
    prefix = torch.zeros(BATCH, dtype=torch.long)
    going = torch.ones(BATCH, dtype=torch.bool)
    tokens, mask = [], []
    for _ in range(LENGTH):
        token = torch.multinomial(chances[prefix], 1, generator=generator)[:, 0]
        tokens.append(torch.where(going, token, EOS))
        mask.append(going)
        going = going & (token != EOS)
        prefix = torch.where(going, 2 * prefix + 1 + token, 0)
    rows = torch.stack(tokens, dim=1)
    return Rollout(rows, torch.stack(mask, dim=1), prefixes(rows))


def score(rollout: Rollout, world: Problem) -> Tensor:
    """Look up the score of each reply, [B]."""
    same = (rollout.tokens[:, None] == world.tokens[None]).all(-1)
    return world.scores[same.long().argmax(-1)]


def train(seed: int, iterations: int = ITERATIONS, whiten: bool = False) -> list[float]:
    """Run PPO from the reference and return the distance to the optimum before and after each."""
    world, generator = problem(seed), torch.Generator().manual_seed(1000 + seed)
    logits = world.reference.clone().requires_grad_()
    table = torch.zeros(PREFIXES, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([{"params": [logits]}, {"params": [table]}], lr=RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, iterations)
    curve = [distance(logits.detach(), world)]
    for _ in range(iterations):
        rollout = sample(logits.detach(), generator)
        old_logp = log_probs(logits, rollout.tokens, rollout.prefix).detach()
        ref_logp = log_probs(world.reference, rollout.tokens, rollout.prefix)
        old_values = table[rollout.prefix].detach()
        rewards = ppo.token_rewards(score(rollout, world), old_logp, ref_logp, rollout.mask, BETA)
        targets = ppo.gae(rewards, old_values, rollout.mask, 1.0, 0.95)
        advantages = targets.advantages
        if whiten:
            advantages = masked.whiten(advantages, rollout.mask)
        for _ in range(EPOCHS):
            logp = log_probs(logits, rollout.tokens, rollout.prefix)
            values = table[rollout.prefix]
            policy = ppo.policy_loss(logp, old_logp, advantages, rollout.mask, 0.2)
            critic = ppo.value_loss(values, old_values, targets.returns, rollout.mask, None)
            optimizer.zero_grad()
            (policy.loss + critic.loss).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        schedule.step()
        curve.append(distance(logits.detach(), world))
    return curve


def draw(curves: list[list[float]]) -> str:
    """Write the curves as an SVG with a logarithmic vertical axis."""
    left, top, width, height = 70, 50, 560, 300
    low, high = -4.0, 0.0
    last = max(map(len, curves)) - 1

    def across(iteration: float) -> float:
        return left + width * iteration / last

    def down(value: float) -> float:
        return top + height * (high - math.log10(max(value, 10**low))) / (high - low)

    def label(x: float, y: float, text: str, more: str = "") -> str:
        return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{text}</text>'

    def line(x1: float, y1: float, x2: float, y2: float, more: str) -> str:
        return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {more}/>'

    right, bottom = left + width, top + height
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 660 415" font-family="sans-serif" '
        'font-size="13">',
        '<rect width="660" height="415" fill="white"/>',
        label(left, 24, "PPO reaches the known optimum of a two-word language", 'font-size="16"'),
        label(left, 41, "total variation between policy and optimum, five seeds", 'fill="#555"'),
    ]
    for value in (1, 0.1, 0.01, 0.001, 0.0001):
        y = down(value)
        parts.append(line(left, y, right, y, 'stroke="#ddd"'))
        parts.append(label(left - 8, y + 4, f"{value:g}", 'text-anchor="end"'))
    for step in range(0, last + 1, 50):
        x = across(step)
        parts.append(line(x, bottom, x, bottom + 5, 'stroke="#555"'))
        parts.append(label(x, bottom + 20, str(step), 'text-anchor="middle"'))
    parts.append(line(left, down(GOAL), right, down(GOAL), 'stroke="#555" stroke-dasharray="6 4"'))
    parts.append(label(left + 6, down(GOAL) + 16, f"goal: {GOAL:g}", 'fill="#555"'))
    for seed, curve in enumerate(curves):
        points = " ".join(f"{across(i):.1f},{down(v):.1f}" for i, v in enumerate(curve))
        colour = COLOURS[seed % len(COLOURS)]
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}"/>')
        parts.append(
            label(right - 60, top + 18 + 17 * seed, f"seed {seed}", f'fill="{colour}"'),
        )
    middle = left + width / 2
    parts.append(label(middle, bottom + 45, "iteration", 'text-anchor="middle"'))
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    """Train with five seeds, draw the curves and print where they end."""
    parser = argparse.ArgumentParser(description="PPO on a problem with a known optimum")
    default = Path(__file__).parent / "figures" / "ppo_toy.svg"
    parser.add_argument("--out", type=Path, default=default, help="where the figure goes")
    out: Path = parser.parse_args().out
    torch.set_num_threads(1)
    curves = [train(seed) for seed in SEEDS]
    whitened = [train(seed, whiten=True)[-1] for seed in SEEDS]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(draw(curves))
    print("seed  at the start  at the end  at the end, advantages whitened")
    for seed, curve, other in zip(SEEDS, curves, whitened, strict=True):
        print(f"{seed:4d}  {curve[0]:12.4f}  {curve[-1]:10.4f}  {other:10.4f}")
    print(f"worst {max(curve[-1] for curve in curves):.4f}, goal {GOAL}; figure: {out}")


if __name__ == "__main__":
    main()
