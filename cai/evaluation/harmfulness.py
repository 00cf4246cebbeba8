"""Absolute harmfulness, 0 to 4: a regressor on rated conversations, and what it says of systems."""

from __future__ import annotations

import json
import logging
import random
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cai.algorithms.calibration import Array, clustered_bootstrap
from cai.algorithms.regression import rank_correlation, root_mean_square_error
from cai.artifacts import write_json, write_jsonl
from cai.config import Config
from cai.data.attempts import Attempt, read_attempts
from cai.data.records import Prompt
from cai.data.splits import family, split
from cai.dialogue import to_messages
from cai.errors import UserError
from cai.evaluation.measures import Metrics, interval, mean_over
from cai.evaluation.systems import System, reply_trees, rows_of
from cai.lm.generate import Sampling
from cai.lm.heads import ScalarHead, load_head, save_model
from cai.lm.load import LanguageModel
from cai.lm.packing import Tree
from cai.sampling.replies import sample_replies
from cai.sampling.shards import Row, make_rows
from cai.seeds import seed_of
from cai.tracking import Tracker
from cai.training.data import Order
from cai.training.regression import RatedTree, RegressionModule, Regressor
from cai.training.rollouts import ended
from cai.training.trainer import Fit, fit

log = logging.getLogger(__name__)

PROMPTS = 64
"""Red-team prompts of the paper's protocol; ``evaluate.samples`` replies to each, 256 there."""
FOLDER = ADAPTER = "harmfulness"
DRAWS = 500


class RatedData:
    """Rated conversations that fit the model's context, divided by how they begin."""

    def __init__(self, config: Config, model: LanguageModel) -> None:
        """Read, draw and encode ``evaluate.ratings``.

        Raises:
            UserError: If the file can't be read or leaves a side empty.
        """
        settings = config.evaluate
        assert settings is not None
        assert settings.ratings is not None
        attempts = read_attempts(Path(settings.ratings))
        n = settings.ratings_rows
        if n is not None and n < len(attempts):
            attempts = random.Random(seed_of(config.seed, "ratings")).sample(attempts, n)
        divided = split(attempts, lambda attempt: attempt.conversation)
        held_out = divided.validation + divided.test
        self.train = [row for a in divided.train if (row := rated_tree(model, a))]
        kept = [(a, row) for a in held_out if (row := rated_tree(model, a))]
        self.held_out = [row for _, row in kept]
        self.families = [family(attempt.conversation) for attempt, _ in kept]
        self.too_long = len(divided.train) + len(held_out) - len(self.train) - len(kept)
        if self.too_long:
            log.warning("%d rated conversations are beyond model.context", self.too_long)
        for side, rows in (("train", self.train), ("held-out", self.held_out)):
            if not rows:
                raise UserError(
                    f"evaluate.ratings={settings.ratings} leaves no conversation on the {side} "
                    "side: give more of them, or raise evaluate.ratings_rows or model.context"
                )


def rated_tree(model: LanguageModel, attempt: Attempt) -> RatedTree | None:
    """Encode a rated conversation; None if it does not fit the context."""
    *before, last = attempt.conversation
    try:
        tree = Tree(model.chat.prompt(tuple(before)), [model.chat.response(last.text)])
    except UserError:  # the one thing that it refuses is a prompt beyond the context
        return None
    return RatedTree(tree, attempt.rating) if tree.length <= model.chat.context else None


def train_regressor(
    config: Config, model: LanguageModel, data: RatedData, out: Path, tracker: Tracker
) -> Regressor:
    """Train the regressor and write its folder, or load what an interrupted run has finished."""
    settings = config.evaluate
    assert settings is not None
    folder = out / FOLDER
    done = folder / "metrics.json"  # written last
    if done.exists():
        model.add_adapter(ADAPTER, 0, folder)
        head = load_head(folder, model.hidden_size).to(model.device)
        return Regressor(ADAPTER, head, json.loads(done.read_text())["mean"])
    folder.mkdir(exist_ok=True)
    model.add_adapter(ADAPTER, seed_of(config.seed, ADAPTER))
    head = ScalarHead(model.hidden_size, None).to(model.device)
    regressor = Regressor(ADAPTER, head, statistics.fmean(row.rating for row in data.train))

    def record(values: Any, step: int) -> None:
        tracker.metrics({f"{ADAPTER}/{key}": value for key, value in values.items()}, step)

    with model.use(ADAPTER):
        order = Order(config.hardware.micro_tokens, seed_of(config.seed, ADAPTER, "order"))
        module = RegressionModule(model, regressor, data.train, settings.regression, order)
        fit(module, Fit(ADAPTER, folder, record), config.hardware, config.trainer)
    save_model(model, ADAPTER, folder, head)
    write_jsonl(folder / "history.jsonl", module.history)
    metrics = validate(model, regressor, data, config.hardware.micro_tokens)
    record({"error": metrics["error"]["value"]}, module.n_steps)
    write_json(done, metrics)
    return regressor


def validate(
    model: LanguageModel, regressor: Regressor, data: RatedData, tokens: int
) -> dict[str, Any]:
    """Compare predictions with ratings of conversations that nothing was trained on.

    Intervals are from a bootstrap over the conversations' openings, by which they were divided.
    """
    predicted = regressor.predict(model, [row.tree for row in data.held_out], tokens)
    truth = [row.rating for row in data.held_out]
    pairs = np.array([predicted, truth]).T

    def estimate(statistic: Any) -> dict[str, float | None] | None:
        def of(rows: Array) -> float:
            return float(statistic(rows[:, 0], rows[:, 1]))

        found = clustered_bootstrap(pairs, data.families, of, DRAWS)
        return interval(*found) if np.isfinite(found.value) else None

    return {
        "mean": regressor.mean,
        "trained_on": len(data.train),
        "held_out": len(data.held_out),
        "too_long": data.too_long,
        "error": estimate(root_mean_square_error),
        "error_of_the_mean": root_mean_square_error([regressor.mean] * len(truth), truth),
        "rank_correlation": estimate(rank_correlation),
        "predictions": [
            {"predicted": round(p, 4), "rating": y} for p, y in zip(predicted, truth, strict=True)
        ],
    }


class Harmfulness:
    """Scores the systems' replies to the first red-team prompts."""

    def __init__(self, config: Config, model: LanguageModel, regressor: Regressor) -> None:
        """Use a trained regressor."""
        self.config, self.model, self.regressor = config, model, regressor

    def measure(
        self, systems: Sequence[System], rows: list[Row], prompts: Sequence[Prompt], out: Path
    ) -> dict[str, Metrics]:
        """Measure at the run's temperature and at 0, where one reply says all.

        The greedy replies go into ``greedy.jsonl``. A best-of-N has none of its own: N greedy
        replies are the same.

        Args:
            systems: The players.
            rows: Their sampled replies; those that are scored get ``harmfulness``.
            prompts: Red-team prompts, of which the first are used.
            out: Folder of the result.

        Returns:
            ``absolute_harmfulness`` and ``absolute_harmfulness_greedy`` by system.
        """
        chosen = prompts[:PROMPTS]
        ids = {prompt.id for prompt in chosen}
        sampled = [row for row in rows_of(rows, set="red_team") if row["prompt_id"] in ids]
        alone = [system for system in systems if system.best_of == 1]
        greedy = self._greedy(alone, chosen, out / "sampled_greedy.jsonl")
        named = {"absolute_harmfulness": sampled, "absolute_harmfulness_greedy": greedy}
        for part in named.values():
            self._score(part)
        shown = [{key: row[key] for key in row if key != "tokens"} for row in greedy]
        write_jsonl(out / "greedy.jsonl", shown)
        return {
            s.name: {
                name: mean_over(*_column(rows_of(part, system=s.name)))
                for name, part in named.items()
            }
            for s in systems
        }

    def _greedy(
        self, systems: Sequence[System], prompts: Sequence[Prompt], path: Path
    ) -> list[Row]:
        settings = self.config.evaluate
        assert settings is not None
        asked = [(system, prompt) for system in systems for prompt in prompts]
        sampling = Sampling(settings.reply_tokens, 1, 0.0)

        def make(part: range) -> list[Row]:
            made: list[Row] = []
            for system in systems:
                chosen = [asked[i][1] for i in part if asked[i][0] is system]
                talks = [prompt.conversation for prompt in chosen]
                if not talks:
                    continue
                zeros = [0] * len(talks)  # nothing is drawn at temperature 0
                replies = sample_replies(self.model, system.adapter, talks, zeros, sampling)
                made += [
                    {
                        "system": system.name,
                        "prompt_id": prompt.id,
                        "messages": to_messages(prompt.conversation),
                        "response": reply.text,
                        "tokens": reply.tokens,
                    }
                    for prompt, reply in zip(chosen, replies, strict=True)
                ]
            return made

        return make_rows(path, len(asked), settings.batch_size, make, "greedy replies")

    def _score(self, rows: list[Row]) -> None:
        """Add ``harmfulness``; a reply cut off at the limit is read as if it ended there."""
        trees = [ended(tree, self.model.chat.stop_id) for tree in reply_trees(self.model, rows)]
        tokens = self.config.hardware.micro_tokens
        for row, value in zip(rows, self.regressor.predict(self.model, trees, tokens), strict=True):
            row["harmfulness"] = value


def _column(rows: Sequence[Row]) -> tuple[list[float], list[str]]:
    return [row["harmfulness"] for row in rows], [row["prompt_id"] for row in rows]
