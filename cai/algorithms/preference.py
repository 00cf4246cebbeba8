"""Losses that learn from the probability that one of two replies is better."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Pair(NamedTuple):
    """A number for reply A and one for reply B of each comparison, [N] and [N]."""

    a: Tensor
    b: Tensor


class Accuracy(NamedTuple):
    """How many comparisons were decided rightly, of how many that have a right answer."""

    correct: float
    counted: int

    @property
    def rate(self) -> float:
        """Share decided rightly; nan if no comparison has a right answer."""
        return self.correct / self.counted if self.counted else float("nan")


def smooth(labels: Tensor, smoothing: float) -> Tensor:
    """Label probability if a share of the labels is flipped: p (1 - e) + (1 - p) e.

    The conservative label of Mitchell (2023), "A note on DPO with noisy preferences": hard labels
    become 1 - e and e, and a tie stays one half.

    Args:
        labels: Probability that A is better, [N].
        smoothing: e, the share of flipped labels, in [0, 0.5).

    Raises:
        ValueError: If ``smoothing`` is out of range: at 0.5 nothing could be learnt, beyond it
            labels turn round.
    """
    if not 0 <= smoothing < 0.5:
        raise ValueError(f"smoothing is {smoothing} and must be in [0, 0.5)")
    return labels * (1 - smoothing) + (1 - labels) * smoothing


def pairwise_loss(
    scores: Pair,
    labels: Tensor,
    *,
    smoothing: float = 0.0,
    weights: Tensor | None = None,
    centring: float = 0.0,
) -> Tensor:
    """Cross-entropy between the label and sigma(r_A - r_B), the Bradley-Terry probability.

    mean_n w_n [ -p log sigma(r_A - r_B) - (1 - p) log sigma(r_B - r_A) + c (r_A + r_B)^2 ]

    Soft labels as in Bai et al. (2022); the last term is that of Eisenstein et al. (2023) and pins
    the level of the scores, which the first two leave free.

    Args:
        scores: r_A and r_B, [N] each.
        labels: p, probability that A is better, [N] in [0, 1]; 0 and 1 are hard labels.
        smoothing: Share of flipped labels, in [0, 0.5); see ``smooth``.
        weights: w, [N]. The sum is divided by N and not by the sum of the weights, so that a
            weight means the same in a batch of one as in a large batch.
        centring: c, at least 0.

    Returns:
        The loss in nats per comparison, [].
    """
    targets = smooth(labels, smoothing).to(scores.a.dtype)
    margins = scores.a - scores.b
    losses = F.binary_cross_entropy_with_logits(margins, targets, reduction="none")
    losses = losses + centring * (scores.a + scores.b).square()
    return (losses if weights is None else losses * weights).mean()


def pairwise_accuracy(scores: Pair, labels: Tensor) -> Accuracy:
    """Count the comparisons whose likelier reply has the higher score; equal scores count half.

    Args:
        scores: r_A and r_B, [N] each.
        labels: Probability that A is better, [N]; 0.5 has no right answer and is left out.
    """
    truth = torch.sign(labels - 0.5)
    agreement = torch.sign(scores.a - scores.b) * truth
    decided = truth != 0
    return Accuracy(
        correct=((agreement[decided] + 1) / 2).sum().item(), counted=int(decided.sum().item())
    )


def implicit_rewards(policy: Pair, reference: Pair, beta: float) -> Pair:
    """Rewards under which the policy is optimal: beta (log pi(y|x) - log pi_ref(y|x)).

    Rafailov et al. (2023), equation 5 without the term that depends on the prompt alone.

    Args:
        policy: Log-probabilities of the whole replies in nats, [N] each.
        reference: The same under the reference.
        beta: Strength of the KL penalty that is implied, above 0.
    """
    return Pair(beta * (policy.a - reference.a), beta * (policy.b - reference.b))


def dpo_loss(
    policy: Pair, reference: Pair, labels: Tensor, beta: float, *, smoothing: float = 0.0
) -> Tensor:
    """Direct preference optimisation (Rafailov et al. 2023) on soft labels.

    ``pairwise_loss`` of the implicit rewards, so that the preference model and DPO treat labels
    alike.

    Args:
        policy: Log-probabilities of the whole replies in nats, [N] each.
        reference: The same under the reference.
        labels: Probability that A is better, [N] in [0, 1].
        beta: Strength of the KL penalty that is implied, above 0.
        smoothing: Share of flipped labels, in [0, 0.5).

    Returns:
        The loss in nats per comparison, [].
    """
    return pairwise_loss(implicit_rewards(policy, reference, beta), labels, smoothing=smoothing)
