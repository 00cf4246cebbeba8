import math

import pytest
import torch
from torch.nn.functional import logsigmoid

from cai.algorithms.preference import (
    Pair,
    dpo_loss,
    implicit_rewards,
    pairwise_accuracy,
    pairwise_loss,
    smooth,
)


def vector(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


SCORES = Pair(vector(1.0, -0.5, 2.0), vector(0.0, 0.5, 2.0))
LABELS = vector(1.0, 0.25, 0.7)


def test_by_hand():
    # One pair, r_A - r_B = ln 3, so sigma = 3/4; p = 0.9:
    # -0.9 ln(3/4) - 0.1 ln(1/4) = 0.9 * 0.28768207 + 0.1 * 1.38629436 = 0.39754330
    scores = Pair(vector(math.log(3) + 1), vector(1.0))
    assert pairwise_loss(scores, vector(0.9)).item() == pytest.approx(0.3975433009, abs=1e-9)
    # Centring 0.1 adds 0.1 * (ln 3 + 1 + 1)^2 = 0.1 * 9.60139811 = 0.96013981.
    centred = pairwise_loss(scores, vector(0.9), centring=0.1)
    assert centred.item() == pytest.approx(1.3576831121, abs=1e-8)


def test_hard_label_gives_minus_log_sigmoid():
    scores = Pair(vector(2.0, -30.0), vector(0.5, 700.0))
    loss = pairwise_loss(scores, vector(1.0, 1.0))
    assert loss.item() == pytest.approx(-logsigmoid(scores.a - scores.b).mean().item(), rel=1e-14)
    # -log sigma(1.5) = ln(1 + e^-1.5) = ln 1.22313016 = 0.20141328; the other is 730.
    assert loss.item() == pytest.approx((0.20141328 + 730) / 2, abs=1e-7)


def test_swapping_the_replies_changes_nothing():
    options = {"smoothing": 0.1, "centring": 0.2, "weights": vector(1.0, 2.0, 0.5)}
    swapped = pairwise_loss(Pair(SCORES.b, SCORES.a), 1 - LABELS, **options)
    assert swapped.item() == pytest.approx(pairwise_loss(SCORES, LABELS, **options).item())


def test_gradient_is_predicted_minus_label():
    a = SCORES.a.clone().requires_grad_()
    pairwise_loss(Pair(a, SCORES.b), LABELS, smoothing=0.2).backward()
    # d/dr_A of the mean over 3 pairs: (sigma(r_A - r_B) - p') / 3 with p' = 0.2 + 0.6 p.
    expected = (torch.sigmoid(SCORES.a - SCORES.b) - (0.2 + 0.6 * LABELS)) / 3
    assert torch.allclose(a.grad, expected, rtol=1e-13)


def test_smoothing_by_hand_and_by_limit():
    # e = 0.1: 1 -> 0.9, 0 -> 0.1, 0.5 -> 0.5, 0.25 -> 0.225 + 0.075 = 0.3
    assert smooth(vector(1, 0, 0.5, 0.25), 0.1).tolist() == pytest.approx([0.9, 0.1, 0.5, 0.3])
    assert smooth(LABELS, 0.0).tolist() == LABELS.tolist()
    for wrong in (-0.1, 0.5, float("nan")):
        with pytest.raises(ValueError, match=r"must be in \[0, 0.5\)"):
            smooth(LABELS, wrong)


def test_each_option_changes_the_loss():
    losses = {
        pairwise_loss(SCORES, LABELS, **options).item()
        for options in (
            {},
            {"smoothing": 0.1},
            {"centring": 0.1},
            {"weights": vector(1.0, 2.0, 3.0)},
        )
    }
    assert len(losses) == 4


def test_a_weight_means_the_same_alone_and_in_a_batch():
    weights = vector(1.0, 3.0, 0.0)
    together = pairwise_loss(SCORES, LABELS, weights=weights)
    alone = [
        pairwise_loss(Pair(SCORES.a[[i]], SCORES.b[[i]]), LABELS[[i]], weights=weights[[i]]).item()
        for i in range(3)
    ]
    assert together.item() == pytest.approx(sum(alone) / 3, rel=1e-13)
    assert alone[2] == 0


def test_float32_scores_with_float64_labels():
    loss = pairwise_loss(Pair(torch.ones(2), torch.zeros(2)), vector(0.3, 0.6))
    assert loss.dtype is torch.float32


def test_accuracy_leaves_ties_out_and_halves_equal_scores():
    # Right, wrong, right (B better), equal scores, no right answer: (1 + 0 + 1 + 1/2) / 4.
    scores = Pair(vector(1, 0, 0, 2, 5), vector(0, 1, 1, 2, 0))
    found = pairwise_accuracy(scores, vector(0.9, 0.6, 0.0, 1.0, 0.5))
    assert (found.correct, found.counted, found.rate) == (2.5, 4, 0.625)
    assert math.isnan(pairwise_accuracy(Pair(vector(1), vector(0)), vector(0.5)).rate)


def test_dpo_by_hand():
    # beta 0.5; log-ratios: A -10 + 12 = 2, B -9 + 8 = -1; margin 0.5 * 3 = 1.5.
    # p = 1: ln(1 + e^-1.5) = 0.20141328; p = 0.8: that plus (1 - 0.8) * 1.5 = 0.50141328.
    policy, reference = Pair(vector(-10), vector(-9)), Pair(vector(-12), vector(-8))
    rewards = implicit_rewards(policy, reference, 0.5)
    assert (rewards.a.item(), rewards.b.item()) == (1, -0.5)
    hard = dpo_loss(policy, reference, vector(1.0), 0.5)
    assert hard.item() == pytest.approx(0.2014132780, abs=1e-9)
    soft = dpo_loss(policy, reference, vector(0.8), 0.5)
    assert soft.item() == pytest.approx(0.5014132780, abs=1e-9)
    smoothed = dpo_loss(policy, reference, vector(1.0), 0.5, smoothing=0.2)
    assert smoothed.item() == pytest.approx(soft.item(), rel=1e-14)


def test_dpo_of_the_reference_itself_is_ln_2():
    pair = Pair(vector(-3.0, -40.0), vector(-8.0, -2.0))
    for beta in (0.1, 5.0):
        loss = dpo_loss(pair, pair, vector(1.0, 0.3), beta)
        assert loss.item() == pytest.approx(math.log(2), rel=1e-14)


def test_soft_labels_recover_the_probabilities():
    # The minimum of the loss over free scores is at sigma(r_A - r_B) = p.
    p = vector(0.1, 0.45, 0.8)
    margin = torch.log(p / (1 - p)).requires_grad_()
    pairwise_loss(Pair(margin, torch.zeros_like(p)), p).backward()
    assert margin.grad.abs().max().item() < 1e-16
