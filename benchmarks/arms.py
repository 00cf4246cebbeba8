"""How often do intervals of arms hold the truth? Simulated scores with prompts and seeds that vary.

``python benchmarks/arms.py`` draws experiments of six arms, in which an arm's scores differ by
seed, by prompt, by both and by reply, and counts how often the 95 % interval of
`cai.algorithms.arms` holds the contrast with the first arm, beside an interval over prompts alone.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import numpy as np
from side_by_side import table

from cai.algorithms.arms import rate_arms
from cai.algorithms.elo import ELO_PER_NAT

MEANS = (0.0, 0.3, 0.6, 0.6, 1.0, 0.2)
DESIGNS = ((2, 40), (3, 100), (5, 60))
MANY_SEEDS, MANY_PROMPTS = 60, 1500
"""What stands for the truth."""


class Spread(NamedTuple):
    """Standard deviations of a score, in nats."""

    seed: float
    prompt: float
    arm_and_prompt: float
    reply: float


SPREADS = (Spread(0.3, 0.5, 0.3, 0.8), Spread(0.0, 0.5, 0.3, 0.8), Spread(0.15, 1.0, 0.5, 1.0))


def scores(
    draw: np.random.Generator, seeds: int, prompts: int, spread: Spread
) -> dict[str, object]:
    """Draw the scores of one experiment: of each arm, [S, P]."""
    shared = draw.normal(0, spread.prompt, prompts)
    return {
        f"arm {k}": mean
        + draw.normal(0, spread.seed, (seeds, 1))
        + shared
        + draw.normal(0, spread.arm_and_prompt, (1, prompts))
        + draw.normal(0, spread.reply, (seeds, prompts))
        for k, mean in enumerate(MEANS)
    }


def coverage(seeds: int, prompts: int, spread: Spread, repeats: int) -> tuple[float, float]:
    """Return how often both kinds of interval hold the truth, over contrasts and experiments."""
    large = rate_arms(scores(np.random.default_rng(99), MANY_SEEDS, MANY_PROMPTS, spread))
    truth = ELO_PER_NAT * (large.theta - large.theta[0])
    held = by_prompts = 0
    for repeat in range(repeats):
        found = rate_arms(scores(np.random.default_rng(1000 + repeat), seeds, prompts, spread))
        for k in range(1, len(MEANS)):
            effect = found.against(f"arm {k}", "arm 0")
            held += effect.low <= truth[k] <= effect.high
            by_prompts += abs(effect.value - truth[k]) <= 1.96 * effect.prompts_sd
    n = repeats * (len(MEANS) - 1)
    return held / n, by_prompts / n


def main() -> None:
    """Print one line per design."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=200)
    repeats = parser.parse_args().repeats
    rows = []
    for spread in SPREADS:
        for seeds, prompts in DESIGNS:
            held, alone = coverage(seeds, prompts, spread, repeats)
            rows.append((str(seeds), str(prompts), f"{spread.seed}", f"{held:.3f}", f"{alone:.3f}"))
    print(table(("seeds", "prompts", "sd of seeds", "held", "by prompts alone"), rows))


if __name__ == "__main__":
    main()
