import math

import pytest
import torch

from cai.algorithms.masked import (
    RunningMoments,
    masked_mean,
    masked_sum,
    masked_var,
    moments,
    whiten,
)

X = torch.tensor([[1.0, 2.0, 9.0], [6.0, 9.0, 9.0]], dtype=torch.float64)
MASK = torch.tensor([[True, True, False], [True, False, False]])
JUNK = (float("nan"), float("inf"), -float("inf"), 1e300)


def test_by_hand():
    # Counted: 1, 2 | 6. Sum 9, mean 3, squared deviations 4 + 1 + 9 = 14, over 3.
    assert masked_sum(X, MASK).item() == 9
    assert masked_mean(X, MASK).item() == 3
    assert masked_var(X, MASK).item() == pytest.approx(14 / 3, rel=1e-14)
    # By row: means 1.5 and 6, variances ((1/2)^2 + (1/2)^2) / 2 = 1/4 and 0.
    assert masked_sum(X, MASK, -1).tolist() == [3, 6]
    assert masked_mean(X, MASK, -1).tolist() == [1.5, 6]
    assert masked_var(X, MASK, -1).tolist() == [0.25, 0]
    assert masked_var(X, MASK, 0).tolist() == [6.25, 0, 0]


def test_nothing_counted_is_zero():
    none = torch.zeros_like(MASK)
    assert masked_mean(X, none).item() == 0
    assert masked_var(X, none).item() == 0
    assert whiten(X, none).tolist() == torch.zeros_like(X).tolist()


def test_whiten_by_hand():
    # (1, 2, 6) - 3 over sqrt(14/3).
    spread = math.sqrt(14 / 3)
    expected = [[-2 / spread, -1 / spread, 0], [3 / spread, 0, 0]]
    assert torch.allclose(
        whiten(X, MASK), torch.tensor(expected, dtype=torch.float64), rtol=1e-8, atol=0
    )


def test_whiten_centres_and_scales():
    x = 5 + 3 * torch.randn(40, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mask = torch.rand(40, 7, generator=torch.Generator().manual_seed(1)) < 0.6
    kept = whiten(x, mask)[mask]
    assert kept.mean().item() == pytest.approx(0, abs=1e-12)
    assert kept.var(unbiased=False).item() == pytest.approx(1, rel=1e-6)


def test_whiten_of_equal_numbers_is_zero():
    assert whiten(torch.full((2, 3), 7.0), MASK).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_spread_survives_a_large_offset_in_float32():
    # 10,000 and 10,001: the variance is 1/4, and lost if taken as mean of squares less square.
    x = torch.tensor([10_000.0, 10_001.0])
    assert moments(x, torch.tensor([True, True])).variance.item() == pytest.approx(0.25, rel=1e-6)


@pytest.mark.parametrize("junk", JUNK)
def test_junk_changes_neither_value_nor_gradient(junk):
    def run(filler):
        x = torch.where(MASK, X, filler).requires_grad_()
        weights = torch.tensor([[1.0, 2, 3], [4, 5, 6]], dtype=torch.float64)
        outputs = [
            masked_sum(x, MASK),
            masked_mean(x, MASK),
            masked_var(x, MASK),
            masked_var(x, MASK, -1).sum(),
            (whiten(x, MASK) * weights).sum(),
        ]
        return torch.stack(outputs), torch.autograd.grad(sum(outputs), x)[0]

    for ours, clean in zip(run(junk), run(0.0), strict=True):
        assert ours.tolist() == clean.tolist()
    stats = moments(torch.where(MASK, X, junk), MASK)
    assert [part.item() for part in stats] == [part.item() for part in moments(X, MASK)]


def test_running_moments_equal_those_of_everything():
    x = 3 + torch.randn(100, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    running = RunningMoments()
    for piece in x.split([1, 9, 40, 50]):
        running.update(moments(piece, torch.ones_like(piece, dtype=torch.bool)))
    assert running.count == 100
    assert running.mean == pytest.approx(x.mean().item(), rel=1e-13)
    assert running.std == pytest.approx(x.std(unbiased=False).item(), rel=1e-13)


def test_running_spread_is_one_until_known():
    running = RunningMoments()
    assert running.std == 1
    running.update(moments(torch.tensor([4.0]), torch.tensor([False])))
    assert running == RunningMoments()
    running.update(moments(torch.tensor([4.0]), torch.tensor([True])))
    assert (running.mean, running.std) == (4, 1)
    running.update(moments(torch.tensor([8.0]), torch.tensor([True])))
    assert (running.mean, running.std) == (6, 2)


def test_running_moments_resume_to_the_bit():
    batches = torch.randn(6, 5, generator=torch.Generator().manual_seed(5))
    every = torch.ones(5, dtype=torch.bool)
    straight, before, after = RunningMoments(), RunningMoments(), RunningMoments()
    for batch in batches:
        straight.update(moments(batch, every))
    for batch in batches[:3]:
        before.update(moments(batch, every))
    after.load_state_dict(before.state_dict())
    for batch in batches[3:]:
        after.update(moments(batch, every))
    assert after == straight
