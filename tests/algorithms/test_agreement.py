"""Agreement between annotators, against values computed by hand."""

import itertools
import random

import pytest

from cai.algorithms.agreement import krippendorff, of_comparisons


def test_alpha_by_hand():
    """Units (1, 1), (0, 1), (0, 0): n = 6 with three ones.

    Observed: (0 + 2 + 0) / 6 = 1/3. Expected: 2 * 3 * 3 / (6 * 5) = 3/5. Alpha = 1 - 5/9.
    """
    assert krippendorff([(1, 1), (0, 1), (0, 0)]) == pytest.approx(4 / 9)


def test_units_of_different_sizes_by_hand():
    """Units (0, 0, 1), (1, 1), and (1), which has no pair: n = 5 with three ones.

    Observed: (2 * 2 / 2 + 0) / 5 = 2/5. Expected: 2 * 2 * 3 / (5 * 4) = 3/5. Alpha = 1/3.
    """
    assert krippendorff([(0, 0, 1), (1, 1), (1,)]) == pytest.approx(1 / 3)


def test_ties_lie_between_by_hand():
    """Units (0, .5), (1, 1): observed (2 * .25) / 4 = 1/8; differences among 0, .5, 1, 1 are

    2 * (.25 + 1 + 1 + .25 + .25 + 0) = 5.5 over 4 * 3. Alpha = 1 - (1/8) / (11/24) = 8/11.
    """
    assert krippendorff([(0, 0.5), (1, 1)]) == pytest.approx(8 / 11)


def test_krippendorffs_own_example():
    """The interval alpha of the data in section C of Krippendorff (2011): 0.849."""
    seen = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
        [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
    ]
    units = [[v for v in column if v is not None] for column in zip(*seen)]
    assert krippendorff(units) == pytest.approx(0.849, abs=5e-4)


def test_by_definition():
    draw = random.Random(0)
    units = [[draw.choice((0, 0.5, 1)) for _ in range(draw.randint(1, 4))] for _ in range(30)]
    shared = [unit for unit in units if len(unit) > 1]
    every = [v for unit in shared for v in unit]
    n = len(every)

    def total(values):
        return sum((a - b) ** 2 for a, b in itertools.permutations(values, 2))

    observed = sum(total(unit) / (len(unit) - 1) for unit in shared) / n
    assert krippendorff(units) == pytest.approx(1 - observed / (total(every) / (n * (n - 1))))


def test_agreement_disagreement_and_nothing_to_compare():
    assert krippendorff([(1, 1), (0, 0)]) == 1
    assert krippendorff([(0, 1), (1, 0)]) < 0
    assert krippendorff([(1,), (0,)]) is None
    assert krippendorff([]) is None
    assert krippendorff([(1, 1), (1, 1)]) is None


def test_people_who_all_prefer_one_system_agree():
    assert of_comparisons([(1, 1), (1, 1, 1)]) == 1
    assert of_comparisons([(0.5, 0.5)]) is None


def test_which_side_is_named_first_does_not_matter():
    units = [(1, 1), (1, 1, 0.5), (1, 0.5), (0, 1)]
    turned = [tuple(1 - v for v in unit) if n % 2 else unit for n, unit in enumerate(units)]
    assert of_comparisons(units) == pytest.approx(of_comparisons(turned))
    assert krippendorff(units) != pytest.approx(krippendorff(turned))
