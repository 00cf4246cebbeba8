import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "ppo_toy.py"


@pytest.fixture(scope="module")
def toy():
    spec = importlib.util.spec_from_file_location("ppo_toy", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("seed", "whiten"), [(0, False), (1, True), (3, False)])
def test_ppo_reaches_the_known_optimum(toy, seed, whiten):
    curve = toy.train(seed, whiten=whiten)
    assert curve[0] > 0.3
    assert curve[-1] < 0.02


def test_the_optimum_is_the_best_of_its_neighbours(toy):
    # J = sum pi (score - beta log(pi / pi_ref)) falls for any other distribution over the replies.
    world = toy.problem(0)
    reference = toy.reply_log_probs(world.reference, world)
    best = toy.optimum(world)

    def objective(p):
        return (p * (world.scores - toy.BETA * (p.log() - reference))).sum().item()

    assert reference.exp().sum().item() == pytest.approx(1, rel=1e-13)
    assert len(world.tokens) == 1 + 2 + 4 + 8
    for reply in range(len(best)):
        other = best.clone()
        other[reply] *= 1.1
        assert objective(other / other.sum()) < objective(best)
