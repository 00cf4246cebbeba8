"""Making a judge of one axis from comparisons with a known answer."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from cai.config import JudgeMethod
from cai.contracts.judges import JudgeSettings
from cai.contracts.preferences import PMFolder
from cai.data.records import Comparison
from cai.data.splits import Splits
from cai.judging.readout import direction_of, save_direction
from cai.lm.heads import ScalarHead, ScalarModel
from cai.lm.load import load_model
from cai.pipeline.stage import Job
from cai.seeds import seed_of
from cai.training.data import Order
from cai.training.pm_metrics import evaluate
from cai.training.preference import PairExample, PreferenceModule, pair_tree
from cai.training.trainer import Fit, fit

SEED = 0
"""Of the judge's own draws: an experiment's seed is something that arms may vary."""


def learn(
    settings: JudgeSettings, axis: str, data: Splits[Comparison], folder: PMFolder, job: Job
) -> int:
    """Make the judge of one axis; return the number of comparisons that it learnt from."""
    chosen = drawn(data.train, settings.judge.pairs, axis)
    folder.path.mkdir(exist_ok=True)
    if settings.judge.method is JudgeMethod.readout:
        model = load_model(settings.model, job.hardware)
        tokens = job.hardware.micro_tokens
        save_direction(direction_of(model, axis, chosen, tokens), folder.path)
    elif not folder.metrics.exists():  # written last
        _train(settings, axis, data._replace(train=chosen), folder, job)
    return len(chosen)


def drawn(records: Sequence[Comparison], n: int | None, axis: str) -> list[Comparison]:
    """Draw as many as are wanted."""
    if n is None or n >= len(records):
        return list(records)
    return random.Random(seed_of(SEED, "judge", axis)).sample(list(records), n)


def _train(
    settings: JudgeSettings, axis: str, data: Splits[Comparison], folder: PMFolder, job: Job
) -> None:
    """Train an adapter and its head."""
    model, name = load_model(settings.model, job.hardware), f"judge_{axis}"
    model.add_adapter(name, seed_of(SEED, name))
    head = ScalarHead(model.hidden_size, seed_of(SEED, name, "head")).to(model.device)
    scorer = ScalarModel(model, name, head)
    pairs = [PairExample(pair_tree(model, c), c.probability, 1.0, c.source) for c in data.train]

    def record(values: Mapping[str, float], step: int) -> None:
        job.tracker.metrics({f"{name}/{key}": value for key, value in values.items()}, step)

    with model.use(name):
        order = Order(job.hardware.micro_tokens, seed_of(SEED, name, "order"))
        module = PreferenceModule(scorer, pairs, settings.judge.adapter, order)
        fit(module, Fit(name, folder.path, record), job.hardware, job.trainer)
        held_out = {axis: data.validation + data.test}
        known = evaluate(model, head, held_out, job.hardware.micro_tokens)
    scorer.save(folder.path)
    folder.history.write(module.history)
    folder.metrics.write(replace(known, trained_on={axis: len(pairs)}))
