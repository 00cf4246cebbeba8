"""Proximal policy optimisation of a language model: rewards, advantages, losses, KL control.

Response tokens [B, T] are the sampled ones, the end-of-sequence token among them; ``mask`` is True
on exactly these. Losses are means over all response tokens of the batch. To split a batch into
micro-batches, weight each loss by its share of the batch's response tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from cai.algorithms.masked import masked_mean, masked_sum, masked_var

_LARGEST_KL_ERROR = 0.2


class KLEstimates(NamedTuple):
    """Three estimates of KL(policy || reference) in nats per sequence, [B] each."""

    k1: Tensor
    k2: Tensor
    k3: Tensor


class Advantages(NamedTuple):
    """Advantages, and the returns that the value function should learn, [B, T] each."""

    advantages: Tensor
    returns: Tensor


class PolicyLoss(NamedTuple):
    """The loss and what tells whether the update goes too far; all [], only the loss has a graph.

    ``clip_fraction`` is the share of tokens whose gradient the clipping has removed, ``approx_kl``
    the k3 estimate of KL(old || new) in nats per token.
    """

    loss: Tensor
    clip_fraction: Tensor
    approx_kl: Tensor
    mean_ratio: Tensor


class ValueLoss(NamedTuple):
    """The loss, and the share of tokens that the clipping holds back."""

    loss: Tensor
    clip_fraction: Tensor


def kl_estimates(logp: Tensor, ref_logp: Tensor, mask: Tensor) -> KLEstimates:
    """Estimate KL(policy || reference) from the policy's own samples (Schulman 2020).

    With d = log pi - log pi_ref per token: k1 = d, k2 = d^2 / 2, k3 = exp(-d) - 1 + d, summed over
    the sequence. k1 and k3 are unbiased, k3 is never negative, k2 is biased and steadier. None is
    clamped: a negative k1 is noise that averages out, and cutting it off would be a bias.

    Args:
        logp: Log-probabilities of the sampled tokens under the policy that sampled them, [B, T].
        ref_logp: The same under the reference, [B, T].
        mask: Response tokens, [B, T].
    """
    gap = torch.where(mask, logp - ref_logp, 0)
    return KLEstimates(
        k1=masked_sum(gap, mask, -1),
        k2=masked_sum(gap.square() / 2, mask, -1),
        k3=masked_sum(torch.expm1(-gap) + gap, mask, -1),
    )


def penalise(scores: Tensor, faulty: Tensor, penalty: float) -> Tensor:
    """Take ``penalty`` off the scores [B] of the replies that are ``faulty`` [B]."""
    return torch.where(faulty, scores - penalty, scores)


def token_rewards(
    scores: Tensor, logp: Tensor, ref_logp: Tensor, mask: Tensor, coefficient: float
) -> Tensor:
    """Reward of each token: r_t = -beta (log pi - log pi_ref) + [t is the last token] score.

    Ziegler et al. (2019), equation 2, spread over tokens. The last token is the end-of-sequence
    token itself where the reply has one, never a token after it.

    Args:
        scores: What the preference model says of each reply, [B].
        logp: Log-probabilities under the policy that sampled, [B, T].
        ref_logp: The same under the reference, [B, T].
        mask: Response tokens, [B, T], at least one in each row.
        coefficient: beta, in score units per nat.

    Returns:
        Rewards [B, T], 0 where ``mask`` is False.
    """
    tokens_left = mask.flip(-1).cumsum(-1).flip(-1)
    penalty = torch.where(mask, coefficient * (logp - ref_logp), 0)
    return torch.where(mask & (tokens_left == 1), scores.unsqueeze(-1), 0) - penalty


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, gae_lambda: float
) -> Advantages:
    """Generalised advantage estimation (Schulman et al. 2016).

    delta_t = r_t + gamma V_{t+1} - V_t;  A_t = delta_t + gamma lambda A_{t+1};  R_t = A_t + V_t

    Beyond the last response token V and A are 0, also for a reply that was cut off. Positions
    outside the mask are passed over as if they did not exist.

    Args:
        rewards: r, [B, T].
        values: V_t, the value before token t is chosen, [B, T].
        mask: Response tokens, [B, T].
        gamma: Discount per token.
        gae_lambda: 1: returns minus values, unbiased; 0: one step, low variance.

    Returns:
        Advantages and returns, 0 where ``mask`` is False.
    """
    next_value = torch.zeros_like(values[:, 0])
    next_advantage = torch.zeros_like(next_value)
    columns = []
    for t in reversed(range(values.shape[1])):
        here = mask[:, t]
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantage = delta + gamma * gae_lambda * next_advantage
        next_advantage = torch.where(here, advantage, next_advantage)
        next_value = torch.where(here, values[:, t], next_value)
        columns.append(torch.where(here, advantage, 0))
    advantages = torch.stack(columns[::-1], dim=1)
    return Advantages(advantages, torch.where(mask, advantages + values, 0))


def policy_loss(
    logp: Tensor, old_logp: Tensor, advantages: Tensor, mask: Tensor, clip: float
) -> PolicyLoss:
    """Clipped surrogate (Schulman et al. 2017, equation 7), negated.

    mean_t max(-A rho, -A clip(rho, 1 - c, 1 + c)) with rho = pi(a_t) / pi_old(a_t)

    Args:
        logp: Log-probabilities of the sampled tokens under the policy now, [B, T].
        old_logp: The same when they were sampled, [B, T].
        advantages: A, [B, T].
        mask: Response tokens, [B, T].
        clip: c, how far a ratio may move from 1.
    """
    log_ratio = torch.where(mask, logp - old_logp, 0)
    advantages = torch.where(mask, advantages, 0)
    ratio = log_ratio.exp()
    free = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip, 1 + clip)
    loss = masked_mean(torch.maximum(free, clipped), mask)
    with torch.no_grad():
        return PolicyLoss(
            loss,
            clip_fraction=masked_mean((clipped > free).to(loss.dtype), mask),
            approx_kl=masked_mean(torch.expm1(log_ratio) - log_ratio, mask),
            mean_ratio=masked_mean(ratio, mask),
        )


def value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip: float | None
) -> ValueLoss:
    """Half the squared error of the values, pessimistic about large moves.

    mean_t max((V - R)^2, (V_old + clip(V - V_old, -c, c) - R)^2) / 2

    Args:
        values: V, the values now, [B, T].
        old_values: V_old, when the replies were sampled, [B, T].
        returns: R, [B, T].
        mask: Response tokens, [B, T].
        clip: c, how far a value may move, in reward units; None: freely.

    Returns:
        The loss and, without a graph, the share of tokens that are held back.
    """
    values = torch.where(mask, values, 0)
    old_values = torch.where(mask, old_values, 0)
    returns = torch.where(mask, returns, 0)
    free = (values - returns).square()
    held = free
    if clip is not None:
        held = (old_values + (values - old_values).clamp(-clip, clip) - returns).square()
    loss = masked_mean(torch.maximum(free, held), mask) / 2
    return ValueLoss(loss, clip_fraction=masked_mean((held > free).to(loss.dtype), mask))


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """1 - Var(R - V) / Var(R): 1 for a perfect critic, 0 for a constant one; [B, T] each to []."""
    spread = masked_var(returns, mask).clamp(min=torch.finfo(returns.dtype).tiny)
    return 1 - masked_var(returns - values, mask) / spread


def entropy(logits: Tensor) -> Tensor:
    """Entropy of softmax(logits) in nats, [..., V] to [...]; barred tokens may have logit -inf."""
    logp = torch.log_softmax(logits, dim=-1)
    # 0 log 0 = 0, in the gradient too.
    return -(logp.exp() * logp.masked_fill(logp == -torch.inf, 0)).sum(-1)


@dataclass
class FixedKL:
    """A KL coefficient that stays as it is."""

    coefficient: float

    def update(self, kl: float, sequences: int) -> None:
        """Leave the coefficient alone."""

    def state_dict(self) -> dict[str, float]:
        """Return what a resumed run needs."""
        return {"coefficient": self.coefficient}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Take over what ``state_dict`` returned."""
        self.coefficient = state["coefficient"]


@dataclass
class AdaptiveKL(FixedKL):
    """A KL coefficient that steers towards a target (Ziegler et al. 2019, section 2.2).

    e = clip(KL / target - 1, -0.2, 0.2);  beta <- beta (1 + e n / horizon)

    Attributes:
        coefficient: beta, in score units per nat.
        target: KL to the reference in nats per *sequence*, summed over its tokens; above 0.
        horizon: Number of sequences over which beta changes by a factor of about exp(e).
    """

    target: float
    horizon: int

    def __post_init__(self) -> None:
        """Check the target, by which the error is divided."""
        if self.target <= 0:
            raise ValueError(f"the KL target is {self.target} nats and must be above 0")

    def update(self, kl: float, sequences: int) -> None:
        """Move the coefficient after n ``sequences`` whose mean KL was ``kl`` nats (k1)."""
        error = max(-_LARGEST_KL_ERROR, min(_LARGEST_KL_ERROR, kl / self.target - 1))
        self.coefficient *= 1 + error * sequences / self.horizon
