"""Preference models on human comparisons: a learning curve beside two floors.

    python benchmarks/preference_data.py --data DIR --set hh [--pairs N] [--minutes M] [KEY=VALUE]

DIR holds ``hh-rlhf/harmless-base/*.jsonl.gz`` for ``--set hh``, or ``preference/oasst*.jsonl.gz``
and ``preference/pandalm*.jsonl`` for ``--set oasst``: lines ``{"chosen": text, "rejected": text}``
in the format of Anthropic/hh-rlhf. Pairs are divided by prompt into training, validation and test.
One run of ``PreferenceModule`` and ``fit`` with the settings of conf/stage/pm.yaml (KEY=VALUE
changes one) reads every training pair once; it is measured after a quarter, a half and all of them.
The temperature is fitted on the validation part. The floors see the same test pairs: the longer
reply wins, and a logistic regression on the difference of the replies' tf-idf vectors, which is
fitted on the same training pairs. Standard errors count pairs of one prompt as one draw.
"""

from __future__ import annotations

import argparse
import math
import random
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from side_by_side import CLOCKS, add_clock, settings, start_clock, table
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from cai.algorithms.calibration import (
    Array,
    expected_calibration_error,
    fit_temperature,
    fold,
    sigmoid,
)
from cai.config import Config
from cai.data.forms import Forms
from cai.data.records import Comparison
from cai.data.rows import collect
from cai.data.source import Source
from cai.data.splits import family
from cai.lm.heads import ScalarHead, ScalarModel
from cai.lm.load import LanguageModel, load_model
from cai.training.data import Order, schedule_batches
from cai.training.preference import PairExample, PreferenceModule, pair_tree, score_responses
from cai.training.trainer import Fit, fit

FILES = {
    "hh": ["hh-rlhf/harmless-base/*.jsonl.gz"],
    "oasst": ["preference/oasst*.jsonl.gz", "preference/pandalm*.jsonl"],
}
PROBES = {"warm": 1, "probe": 2}
"""Throw-away adapters and the batches they train on; speed is that of the last."""


class Parts(NamedTuple):
    """Pairs with the chosen reply first; no prompt family is in two parts."""

    train: list[Comparison]
    validation: list[Comparison]
    test: list[Comparison]


class Speed(NamedTuple):
    """Pairs per second."""

    train: float
    score: float


class Measured(NamedTuple):
    """A PM after some training pairs: scores of chosen less rejected replies."""

    pairs: int
    seconds: float
    validation: Array
    test: Array


def read_parts(args: argparse.Namespace, model: LanguageModel) -> tuple[Parts, int]:
    """Divide the pairs by prompt; count those that are left out, too long or malformed."""
    paths = [path for name in FILES[args.set] for path in sorted(Path(args.data).glob(name))]
    if len(paths) < len(FILES[args.set]):
        raise SystemExit(f"--data {args.data} must hold {' and '.join(FILES[args.set])}")
    by_family: dict[str, list[Comparison]] = {}
    left_out = 0
    for path in paths:
        forms = Forms(args.set, "human")
        read, faults = collect(Source("--data", path), forms.comparison)
        left_out += faults.count  # published rows that are no dialogues
        for comparison in (placed.record for placed in read):
            if longest(model, comparison) > args.max_tokens:
                left_out += 1
                continue
            by_family.setdefault(family(comparison.prompt.conversation), []).append(comparison)
    families = sorted(by_family)
    random.Random(args.seed).shuffle(families)
    parts = Parts([], [], [])
    for name in families:
        part = parts.train
        if len(parts.test) < args.test:
            part = parts.test
        elif len(parts.validation) < args.validation:
            part = parts.validation
        part += by_family[name]
    random.Random(args.seed).shuffle(parts.train)
    return parts, left_out


def longest(model: LanguageModel, comparison: Comparison) -> int:
    """Count the tokens of the prompt with its longer reply."""
    tree = pair_tree(model, comparison)
    return len(tree.prompt) + max(map(len, tree.responses))


def measure_speed(
    config: Config, model: LanguageModel, train: Sequence[Comparison], timer: str
) -> Speed:
    """Train a throw-away adapter on a few pairs, and score them; the first pass warms up."""
    clock = CLOCKS[timer]
    for name, batches in PROBES.items():
        n = batches * config.pm.batch_size
        [last] = learn(config, model, name, train[:n], {n: Parts([], [], [])}, timer)
        began = clock()
        margins(config, model, ScalarHead(model.hidden_size, 0), train[:n])
        scored = clock() - began
    return Speed(n / last.seconds, n / scored)


def learn(
    config: Config,
    model: LanguageModel,
    name: str,
    train: Sequence[Comparison],
    held_out: Mapping[int, Parts],
    timer: str,
) -> list[Measured]:
    """Train a new PM for one epoch and measure it after as many pairs as ``held_out`` names."""
    settings, clock = config.pm, CLOCKS[timer]
    model.add_adapter(name, config.seed)
    head = ScalarHead(model.hidden_size, config.seed).to(model.device)
    pairs = [PairExample(pair_tree(model, c), 1.0, 1.0, c.source) for c in train]
    found: list[Measured] = []
    seconds, began = 0.0, clock()

    def record(values: Mapping[str, float], step: int) -> None:
        nonlocal seconds, began
        done = (step + 1) * settings.batch_size
        if "loss" in values and done in held_out:
            seconds += clock() - began
            parts = held_out[done]
            scores = [margins(config, model, head, p) for p in (parts.validation, parts.test)]
            found.append(Measured(done, seconds, *scores))
            began = clock()

    with model.use(name), tempfile.TemporaryDirectory() as folder:
        order = Order(config.hardware.micro_tokens, config.seed)
        module = PreferenceModule(ScalarModel(model, name, head), pairs, settings, order)
        job = Fit(name, Path(folder), record, every=len(pairs))
        fit(module, job, config.hardware, config.trainer)
    return found


def margins(
    config: Config, model: LanguageModel, head: ScalarHead, comparisons: Sequence[Comparison]
) -> Array:
    """Score of the chosen reply less that of the rejected one, [N]."""
    trees = [pair_tree(model, comparison) for comparison in comparisons]
    scores = score_responses(model, head.to(model.device), trees, config.hardware.micro_tokens)
    return np.array([chosen - rejected for chosen, rejected in scores])


def in_order(config: Config, model: LanguageModel, train: list[Comparison]) -> list[Comparison]:
    """Return the pairs in the order in which the PM reads them."""
    lengths = [pair_tree(model, comparison).length for comparison in train]
    tokens, seed = config.hardware.micro_tokens, config.seed
    steps = schedule_batches(lengths, config.pm, tokens, seed)
    return [train[i] for step in steps for micro in step for i in micro.records]


def tf_idf_margins(train: Sequence[Comparison], test: Sequence[Comparison]) -> Array:
    """Log-odds of a logistic regression on the difference of tf-idf vectors, without a constant.

    Each training pair counts in both orders, so that no order is favoured.
    """
    vectors = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2))
    vectors.fit([text for c in train for text in (c.a, c.b)])

    def difference(comparisons: Sequence[Comparison]) -> Array:
        a, b = (vectors.transform([getattr(c, side) for c in comparisons]) for side in "ab")
        return a - b  # type: ignore[no-any-return]

    x = difference([*train, *(c.swap() for c in train)])
    y = [1] * len(train) + [0] * len(train)
    regression = LogisticRegression(fit_intercept=False, C=10.0, max_iter=1000).fit(x, y)
    return np.asarray(regression.decision_function(difference(test)))


def length_margins(comparisons: Sequence[Comparison]) -> Array:
    """Characters of the chosen reply less those of the rejected one."""
    return np.array([float(len(c.a) - len(c.b)) for c in comparisons])


def accuracy(margin: Array, comparisons: Sequence[Comparison]) -> str:
    """Write the share of positive margins, ties half, and an error robust to shared prompts."""
    right = (np.sign(margin) + 1) / 2
    mean = float(right.mean())
    sums: dict[str, float] = {}
    for value, comparison in zip(right, comparisons, strict=True):
        name = family(comparison.prompt.conversation)
        sums[name] = sums.get(name, 0.0) + value - mean
    error = math.sqrt(sum(total * total for total in sums.values())) / len(right)
    return f"{mean:.3f} +- {error:.3f}"


def ece(margin: Array, temperature: float = 1.0) -> float:
    """Calibration error of sigma(margin / T), the chosen reply being the better one."""
    return expected_calibration_error(*fold(sigmoid(margin / temperature), np.ones(len(margin))))


def sizes_for(args: argparse.Namespace, parts: Parts, speed: Speed, batch: int) -> list[int]:
    """Choose the sizes of the curve, multiples of a batch, so that the run keeps its minutes."""
    scoring = 3 * (len(parts.validation) + len(parts.test)) / speed.score
    fitting = int(max(0.0, 60 * args.minutes - scoring) * speed.train)
    most = min(len(parts.train), args.pairs or fitting)
    if most < 4 * batch:
        raise SystemExit(
            f"--minutes {args.minutes} leaves time for {most} training pairs: give more minutes, "
            "or fewer --test and --validation pairs"
        )
    return sorted({max(1, round(most * share) // batch) * batch for share in (0.25, 0.5, 1.0)})


def report(measured: Sequence[Measured], ordered: list[Comparison], parts: Parts) -> None:
    """Print the curve with the floors at each size."""
    rows = []
    for m in measured:
        temperature = fit_temperature(m.validation, np.ones(len(m.validation)))
        floor = accuracy(tf_idf_margins(ordered[: m.pairs], parts.test), parts.test)
        rows.append(
            [
                str(m.pairs),
                accuracy(m.test, parts.test),
                f"{ece(m.test):.3f}",
                f"{temperature:.2f}",
                f"{ece(m.test, temperature):.3f}",
                floor,
                f"{m.seconds / 60:.1f}",
            ]
        )
    head = ["training pairs", "PM accuracy", "ECE", "T", "ECE / T", "tf-idf accuracy", "minutes"]
    print(table(head, rows))
    print(f"longer reply wins: {accuracy(length_margins(parts.test), parts.test)}")
    whole = accuracy(tf_idf_margins(parts.train, parts.test), parts.test)
    print(f"tf-idf on all {len(parts.train)} training pairs: {whole}")


def add_comparisons(parser: argparse.ArgumentParser) -> None:
    """Add what decides on the comparisons and their division, the clock and the settings."""
    parser.add_argument("--data", required=True, help="folder of the comparisons")
    parser.add_argument("--set", required=True, choices=sorted(FILES))
    parser.add_argument("--test", type=int, default=200, help="at least so many test pairs")
    parser.add_argument("--validation", type=int, default=100, help="likewise, for a temperature")
    parser.add_argument("--max-tokens", type=int, default=384, help="of prompt and one reply")
    parser.add_argument("--seed", type=int, default=0, help="of the division and of training")
    add_clock(parser)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings of conf/")


def main() -> None:
    """Measure speed, train once, and print the curve."""
    parser = argparse.ArgumentParser(description="a PM's learning curve beside two floors")
    parser.add_argument("--pairs", type=int, help="most training pairs; else what --minutes allow")
    parser.add_argument("--minutes", type=float, default=10.0, help="of training and measuring")
    add_comparisons(parser)
    args = parser.parse_args()
    config = settings("stage=pm", f"seed={args.seed}", *args.overrides, "pm.epochs=1")
    model = load_model(config.model, config.hardware)
    start_clock(args.clock)
    parts, left_out = read_parts(args, model)
    speed = measure_speed(config, model, parts.train, args.clock)
    counts = ", ".join(f"{len(p)} {n}" for n, p in parts._asdict().items())
    print(
        f"{config.model.name}, {config.model.dtype.value}, {args.clock} time; {args.set}: {counts} "
        f"pairs, {left_out} left out; {speed.train:.2f} pairs/s in training, {speed.score:.2f} in "
        "scoring",
        flush=True,
    )
    sizes = sizes_for(args, parts, speed, config.pm.batch_size)
    train = parts.train[: sizes[-1]]
    measured = learn(config, model, "pm", train, dict.fromkeys(sizes, parts), args.clock)
    report(measured, in_order(config, model, train), parts)


if __name__ == "__main__":
    main()
