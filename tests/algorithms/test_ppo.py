import math

import pytest
import torch

from cai.algorithms.ppo import (
    AdaptiveKL,
    FixedKL,
    entropy,
    explained_variance,
    gae,
    kl_estimates,
    penalise,
    policy_loss,
    token_rewards,
    value_loss,
)

T, F = True, False
JUNK = (float("nan"), float("inf"), -float("inf"), 1e300)


def matrix(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def ragged(seed, mask):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(mask.shape, generator=generator, dtype=torch.float64)


MASK = torch.tensor([[T, T, T, T, T], [T, T, F, F, F], [T, F, F, F, F], [T, T, T, T, F]])
LOGP, OLD, REF, VALUES, REWARDS = (ragged(seed, MASK) for seed in range(5))


def test_kl_estimates_by_hand():
    # d = ln 2 and -ln 2, third position padding. k1 = 0; k2 = 2 * (ln 2)^2 / 2 = 0.48045301;
    # k3 = (1/2 - 1 + ln 2) + (2 - 1 - ln 2) = 1/2.
    logp, ref = matrix([math.log(2), 0, 9]), matrix([0, math.log(2), 0])
    found = kl_estimates(logp, ref, torch.tensor([[T, T, F]]))
    assert found.k1.item() == pytest.approx(0, abs=1e-15)
    assert found.k2.item() == pytest.approx(0.4804530139, abs=1e-9)
    assert found.k3.item() == pytest.approx(0.5, rel=1e-14)


def test_k1_and_k3_are_unbiased_and_k1_may_be_negative():
    policy, reference = matrix([0.7, 0.2, 0.1])[0], matrix([0.3, 0.3, 0.4])[0]
    exact = (policy * (policy / reference).log()).sum().item()
    # All three tokens, weighted by the policy: the expectation of an estimate without sampling.
    found = kl_estimates(policy.log()[:, None], reference.log()[:, None], torch.ones(3, 1) > 0)
    assert (policy * found.k1).sum().item() == pytest.approx(exact, rel=1e-13)
    assert (policy * found.k3).sum().item() == pytest.approx(exact, rel=1e-13)
    assert found.k1.min().item() == pytest.approx(math.log(0.1 / 0.4))
    assert found.k3.min().item() >= 0


def test_score_stands_on_the_last_response_token():
    # beta 0.1. Row 1 ends at its third token, the end-of-sequence one; row 2 was cut off.
    logp, ref = matrix([-1, -2, -3, 7], [-1, -1, -1, -1]), matrix([-2, -2, -1, 0], [-1, -1, -1, -3])
    mask = torch.tensor([[T, T, T, F], [T, T, T, T]])
    found = token_rewards(torch.tensor([5.0, -4.0], dtype=torch.float64), logp, ref, mask, 0.1)
    # Row 1: -0.1 * (1, 0, -2) + (0, 0, 5); row 2: (0, 0, 0, -0.1 * 2 - 4).
    expected = matrix([-0.1, 0, 5.2, 0], [0, 0, 0, -4.2])
    assert torch.allclose(found, expected, rtol=1e-14, atol=0)


def test_rewards_sum_to_score_less_penalty():
    scores = ragged(9, MASK)[:, 0]
    found = token_rewards(scores, LOGP, REF, MASK, 0.3).sum(-1)
    expected = scores - 0.3 * kl_estimates(LOGP, REF, MASK).k1
    assert torch.allclose(found, expected, rtol=1e-13)


def test_penalty_is_taken_off_faulty_replies():
    scores = torch.tensor([1.0, 2.0])
    assert penalise(scores, torch.tensor([F, T]), 0.5).tolist() == [1.0, 1.5]


def test_gae_by_hand():
    # gamma 0.5, lambda 0.5; r = 1, 0, 2; V = 1, 2, 4; then the end.
    # delta = 1 + 1 - 1 = 1;  0 + 2 - 2 = 0;  2 + 0 - 4 = -2
    # A3 = -2;  A2 = 0 + 0.25 * -2 = -0.5;  A1 = 1 + 0.25 * -0.5 = 0.875;  R = A + V
    found = gae(matrix([1, 0, 2, 9]), matrix([1, 2, 4, 9]), torch.tensor([[T, T, T, F]]), 0.5, 0.5)
    assert found.advantages.tolist() == [[0.875, -0.5, -2, 0]]
    assert found.returns.tolist() == [[1.875, 1.5, 2, 0]]


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (0.99, 0.0), (1.0, 1.0)])
def test_gae_by_definition(gamma, lam):
    found = gae(REWARDS, VALUES, MASK, gamma, lam).advantages
    for row, length in enumerate(MASK.sum(-1).tolist()):
        v = [*VALUES[row, :length].tolist(), 0.0]
        delta = [REWARDS[row, t].item() + gamma * v[t + 1] - v[t] for t in range(length)]
        expected = [
            sum((gamma * lam) ** (s - t) * delta[s] for s in range(t, length))
            for t in range(length)
        ]
        assert found[row, :length].tolist() == pytest.approx(expected, rel=1e-12, abs=1e-13)
        assert found[row, length:].eq(0).all()


def test_gae_with_lambda_one_gives_returns_minus_values():
    gamma = 0.9
    found = gae(REWARDS, VALUES, MASK, gamma, 1.0)
    for row, length in enumerate(MASK.sum(-1).tolist()):
        r = REWARDS[row].tolist()
        returns = [sum(gamma ** (s - t) * r[s] for s in range(t, length)) for t in range(length)]
        assert found.returns[row, :length].tolist() == pytest.approx(returns, rel=1e-12)
        minus = [g - v for g, v in zip(returns, VALUES[row].tolist(), strict=False)]
        assert found.advantages[row, :length].tolist() == pytest.approx(minus, rel=1e-12)


def test_gae_passes_over_padding_wherever_it_is():
    left = torch.tensor([[F, F, T, T, T], [F, T, F, T, T]])
    packed = torch.tensor([[T, T, T], [T, T, T]])
    rewards, values = REWARDS[:2], VALUES[:2]
    wide = gae(rewards, values, left, 0.9, 0.8)
    dense = gae(rewards[left].view(2, 3), values[left].view(2, 3), packed, 0.9, 0.8)
    assert wide.advantages[left].tolist() == dense.advantages.flatten().tolist()
    assert wide.returns[left].tolist() == dense.returns.flatten().tolist()


def test_policy_loss_by_hand():
    # Ratios 1.5, 1.5, 0.5, 0.5 with A = 1, -1, 1, -1 and clip 0.2:
    # max(-1.5, -1.2) = -1.2;  max(1.5, 1.2) = 1.5;  max(-0.5, -0.8) = -0.5;  max(0.5, 0.8) = 0.8
    # mean 0.6 / 4 = 0.15; clipping binds in the first and the last: 2/4; mean ratio 1.
    # k3 with log-ratios: (0.5 - ln 1.5) * 2 + (-0.5 - ln 0.5) * 2 over 4 = -ln(0.75) / 2
    logp = matrix([1.5, 1.5, 0.5, 0.5, 7.0]).log()
    mask = torch.tensor([[T, T, T, T, F]])
    found = policy_loss(logp, torch.zeros_like(logp), matrix([1, -1, 1, -1, 5]), mask, 0.2)
    assert found.loss.item() == pytest.approx(0.15, rel=1e-13)
    assert found.clip_fraction.item() == 0.5
    assert found.mean_ratio.item() == pytest.approx(1, rel=1e-14)
    assert found.approx_kl.item() == pytest.approx(-math.log(0.75) / 2, rel=1e-13)


def test_approx_kl_by_hand():
    # One token whose probability doubled: k3 of KL(old || new) is 2 - 1 - ln 2, and k1 -ln 2.
    logp = matrix([math.log(2), 7.0])
    found = policy_loss(logp, torch.zeros(1, 2), logp, torch.tensor([[T, F]]), 0.2)
    assert found.approx_kl.item() == pytest.approx(1 - math.log(2), rel=1e-14)
    assert found.mean_ratio.item() == pytest.approx(2, rel=1e-14)


def test_clipped_tokens_have_no_gradient():
    logp = matrix([1.5, 1.5, 0.5, 0.5]).log().requires_grad_()
    mask = torch.ones(1, 4, dtype=torch.bool)
    policy_loss(logp, torch.zeros(1, 4), matrix([1, -1, 1, -1]), mask, 0.2).loss.backward()
    # d(-A rho)/d logp = -A rho, over 4 tokens, where the clipping does not bind.
    assert logp.grad.tolist() == [pytest.approx([0, 1.5 / 4, -0.5 / 4, 0])]


def test_ratio_one_never_clips_and_is_the_plain_policy_gradient():
    logp = LOGP.clone().requires_grad_()
    found = policy_loss(logp, LOGP, REWARDS, MASK, 0.2)
    found.loss.backward()
    plain = LOGP.clone().requires_grad_()
    (-(plain * REWARDS)[MASK].mean()).backward()
    assert (found.clip_fraction.item(), found.mean_ratio.item(), found.approx_kl.item()) == (
        0,
        1,
        0,
    )
    assert torch.allclose(logp.grad, plain.grad, rtol=1e-14, atol=0)


def test_wider_clip_clips_less():
    tight = policy_loss(LOGP, OLD, REWARDS, MASK, 0.1)
    wide = policy_loss(LOGP, OLD, REWARDS, MASK, 100.0)
    assert tight.clip_fraction.item() > wide.clip_fraction.item() == 0
    assert tight.loss.item() > wide.loss.item()


def test_value_loss_by_hand():
    # V = 1, 3; V_old = 0, 3; R = 2, 1. Free: 1 and 4, mean 2.5, half 1.25.
    # Clip 0.5: V is held at 0.5 and 3; squares 2.25 and 4; maxima 2.25 and 4; half mean 1.5625.
    values, old, returns = matrix([1, 3, 8]), matrix([0, 3, 8]), matrix([2, 1, 8])
    mask = torch.tensor([[T, T, F]])
    free, held = (value_loss(values, old, returns, mask, clip) for clip in (None, 0.5))
    assert (free.loss.item(), free.clip_fraction.item()) == (1.25, 0)
    assert (held.loss.item(), held.clip_fraction.item()) == (1.5625, 0.5)


def test_explained_variance_by_hand():
    # R - V = 1, -2 has variance 2.25, R has 0.25: 1 - 9 = -8; the third token is masked out.
    values, returns = matrix([1, 3, 8]), matrix([2, 1, 9])
    found = explained_variance(values, returns, torch.tensor([[T, T, F]]))
    assert found.item() == pytest.approx(-8, rel=1e-14)


def test_explained_variance_of_perfect_and_constant_critics():
    perfect = explained_variance(VALUES, VALUES, MASK)
    constant = explained_variance(torch.full_like(VALUES, 2.0), VALUES, MASK)
    assert perfect.item() == pytest.approx(1, abs=1e-14)
    assert constant.item() == pytest.approx(0, abs=1e-13)


def test_losses_are_means_over_tokens_not_over_sequences():
    whole = policy_loss(LOGP, OLD, REWARDS, MASK, 0.2).loss
    parts = [policy_loss(LOGP[i], OLD[i], REWARDS[i], MASK[i], 0.2).loss for i in range(4)]
    shares = MASK.sum(-1).double() / MASK.sum()
    assert whole.item() == pytest.approx((torch.stack(parts) * shares).sum().item(), rel=1e-13)


@pytest.mark.parametrize("junk", JUNK)
def test_junk_in_padding_changes_nothing(junk):
    def run(filler):
        fill = [torch.where(MASK, x, filler) for x in (LOGP, OLD, REF, VALUES, REWARDS)]
        logp, old, ref, values, rewards = (x.requires_grad_() for x in fill)
        advantages = gae(rewards, values, MASK, 0.9, 0.8)
        policy = policy_loss(logp, old.detach(), rewards.detach(), MASK, 0.2)
        critic = value_loss(values, old.detach(), rewards.detach(), MASK, 0.2)
        loss = policy.loss + critic.loss + kl_estimates(logp, ref, MASK).k3.sum()
        outputs = [
            *advantages,
            token_rewards(VALUES[:, 0], logp, ref, MASK, 0.1),
            *policy,
            *critic,
            *kl_estimates(logp, ref, MASK),
            *torch.autograd.grad(loss, (logp, values)),
        ]
        return [output.tolist() for output in outputs]

    assert run(junk) == run(0.0)


def test_junk_in_a_counted_token_is_not_hidden():
    logp = LOGP.clone()
    logp[0, 0] = float("nan")
    assert policy_loss(logp, OLD, REWARDS, MASK, 0.2).loss.isnan()


def test_entropy_by_hand_and_with_barred_tokens():
    # Probabilities 1/2, 1/4, 1/4: ln 2 / 2 + ln 4 / 2 = 1.5 ln 2. A barred token adds nothing.
    logits = torch.tensor([2.0, 1.0, 1.0, -math.inf], dtype=torch.float64) * math.log(2)
    logits.requires_grad_()
    found = entropy(logits)
    assert found.item() == pytest.approx(1.5 * math.log(2), rel=1e-14)
    found.backward()
    # dH/dz_i = -p_i (log p_i + H): -1/2 (-1 + 1.5) ln 2 = -ln 2 / 4, then + ln 2 / 8 twice.
    assert logits.grad.tolist() == pytest.approx(
        [-math.log(2) / 4, math.log(2) / 8, math.log(2) / 8, 0], rel=1e-13
    )
    assert entropy(torch.zeros(2, 3, 7)).tolist() == [pytest.approx([math.log(7)] * 3)] * 2


def test_adaptive_kl_by_hand():
    # Target 6, horizon 2000, 64 sequences. KL 6.6: e = 0.1, factor 1 + 0.1 * 64 / 2000 = 1.0032.
    control = AdaptiveKL(0.02, target=6.0, horizon=2000)
    control.update(6.6, 64)
    assert control.coefficient == pytest.approx(0.02 * 1.0032, rel=1e-14)
    # KL 60 is clipped to e = 0.2 (factor 1.0064), KL -1 to e = -0.2 (factor 0.9936).
    control.update(60.0, 64)
    control.update(-1.0, 64)
    assert control.coefficient == pytest.approx(0.02 * 1.0032 * 1.0064 * 0.9936, rel=1e-14)


def test_adaptive_kl_holds_at_the_target_and_resumes():
    control = AdaptiveKL(0.02, target=6.0, horizon=2000)
    control.update(6.0, 64)
    assert control.coefficient == 0.02
    control.update(9.0, 64)
    resumed = AdaptiveKL(0.5, target=6.0, horizon=2000)
    resumed.load_state_dict(control.state_dict())
    assert resumed == control


def test_a_target_of_zero_is_refused():
    with pytest.raises(ValueError, match="must be above 0"):
        AdaptiveKL(0.02, target=0.0, horizon=2000)


def test_fixed_kl_stays():
    control = FixedKL(0.02)
    control.update(1e9, 64)
    assert control.state_dict() == {"coefficient": 0.02}
