"""The parts of a PPO iteration: who plays which role, and what is reported of it."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from cai.algorithms.ppo import AdaptiveKL, FixedKL, explained_variance, kl_estimates
from cai.config import KLConfig, KLControl
from cai.constitution.guards import runs_in_circles
from cai.lm.generate import Completion
from cai.lm.heads import ScalarHead
from cai.lm.load import LanguageModel
from cai.lm.packing import Packed, Tree
from cai.lm.score import Shaping
from cai.seeds import seed_of
from cai.training.rollouts import RewardModel, Rollouts, logprob_grid, to_grid, value_grid


@dataclass(frozen=True)
class Roles:
    """Who is who among the adapters of one base.

    Attributes:
        policy: Trained.
        reference: What the policy must stay near: the adapter that RL started from.
        critic: Trained, together with its head.
        critic_head: Reads a value off a hidden state.
        reward: Scores whole replies.
    """

    policy: str
    reference: str | None
    critic: str
    critic_head: ScalarHead
    reward: RewardModel


@dataclass(frozen=True)
class Reading:
    """How replies are read.

    Attributes:
        max_tokens: Padded tokens of one forward pass.
        shaping: What the sampler did to the logits.
    """

    max_tokens: int
    shaping: Shaping


class UpdateStats(NamedTuple):
    """What one iteration of updates did, averaged over its minibatches."""

    policy_loss: float
    value_loss: float
    clip_fraction: float
    approx_kl: float
    first_ratio: float
    value_clip_fraction: float
    policy_norm: float
    critic_norm: float
    updates: int


def kl_controller(settings: KLConfig) -> FixedKL:
    """Make the controller that the settings ask for."""
    if settings.control is KLControl.adaptive:
        return AdaptiveKL(settings.coefficient, settings.target, settings.horizon)
    return FixedKL(settings.coefficient)


@dataclass(frozen=True)
class Prompts:
    """Token ids to start replies from.

    Attributes:
        red_team: Provocations.
        helpful: Plain requests.
    """

    red_team: Sequence[Sequence[int]]
    helpful: Sequence[Sequence[int]]


def draw_prompts(
    pools: Sequence[Sequence[Sequence[int]]], numbers: Sequence[int], seed: int, step: int
) -> list[Sequence[int]]:
    """Take the next prompts of each pool; each comes once an epoch, in an order of that epoch."""
    chosen: list[Sequence[int]] = []
    for kind, (pool, n) in enumerate(zip(pools, numbers, strict=True)):
        for position in range(step * n, (step + 1) * n):
            epoch, place = divmod(position, len(pool))
            chosen.append(pool[_order(seed, kind, epoch, len(pool))[place]])
    return chosen


@lru_cache(maxsize=4)
def _order(seed: int, kind: int, epoch: int, n: int) -> Sequence[int]:
    """Shuffle a pool for one epoch; asked for every prompt, and made once."""
    order = list(range(n))
    random.Random(seed_of(seed, "prompts", kind, epoch)).shuffle(order)
    return order


def read_rollouts(
    model: LanguageModel,
    roles: Roles,
    trees: list[Tree],
    replies: Sequence[Completion],
    scores: Tensor,
    how: Reading,
) -> Rollouts:
    """Read replies once with the policy, the reference and the critic.

    Args:
        model: Holds the adapters.
        roles: Their names.
        trees: Prompts with what was sampled.
        replies: The samples.
        scores: Of the replies, [B].
        how: In what portions, and under which distribution.
    """
    entropies: list[float] = []
    with model.use(roles.policy):
        policy = logprob_grid(model, trees, how.max_tokens, how.shaping, entropies, as_trained=True)
    with model.use(roles.reference):
        reference = logprob_grid(model, trees, how.max_tokens, how.shaping, as_trained=True)
    with model.use(roles.critic):
        values = value_grid(model, roles.critic_head, trees, how.max_tokens)
    sampled = to_grid([torch.tensor(reply.logprobs) for reply in replies])
    return Rollouts(
        trees=trees,
        ended=torch.tensor([reply.finished for reply in replies]),
        repeats=torch.tensor([runs_in_circles(model.chat.decode(r.tokens)) for r in replies]),
        scores=scores,
        logp=policy.values,
        ref_logp=reference.values,
        values=values.values,
        mask=policy.mask,
        entropy=statistics.fmean(entropies),
        sampler_gap=float((sampled.values - policy.values).abs().max()),
    )


def flat(grid: Tensor, packed: Packed, rows: list[int]) -> Tensor:
    """Read a [B, T] grid in the order of the packed tokens: [M]."""
    row = torch.tensor(rows)[packed.response.cpu()]
    return grid[row, packed.offset.cpu()].to(packed.ids.device)


def average(stats: list[UpdateStats]) -> UpdateStats:
    """Average over minibatches; the first ratio is that of the first one."""
    mean = [sum(column) / len(stats) for column in zip(*stats, strict=True)]
    return UpdateStats(*mean)._replace(first_ratio=stats[0].first_ratio, updates=len(stats))


def summarise(
    rollouts: Rollouts, rewards: Tensor, returns: Tensor, coefficient: float, stats: UpdateStats
) -> dict[str, float]:
    """Return the numbers of an iteration, KL in nats per reply; the critic as it was before."""
    explained = explained_variance(rollouts.values, returns, rollouts.mask)
    kl = kl_estimates(rollouts.logp, rollouts.ref_logp, rollouts.mask)
    return {
        "score": float(rollouts.scores.mean()),
        "score_std": float(rollouts.scores.std(correction=0)),
        "reward": float(rewards.sum(-1).mean()),
        "kl": float(kl.k1.mean()),
        "k1": float(kl.k1.mean()),
        "k2": float(kl.k2.mean()),
        "k3": float(kl.k3.mean()),
        "sqrt_kl": math.sqrt(max(0.0, float(kl.k3.mean()))),
        "kl_coefficient": coefficient,
        "entropy": rollouts.entropy,
        "length": float(rollouts.mask.sum(-1).float().mean()),
        "ended": float(rollouts.ended.float().mean()),
        "repeats": float(rollouts.repeats.float().mean()),
        "sampler_gap": rollouts.sampler_gap,
        "explained_variance": float(explained),
        **stats._asdict(),
    }
