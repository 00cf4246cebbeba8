"""The Goodhart watch: does the score still mean what it should?"""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L

from cai import parallel
from cai.algorithms.diversity import distinct_n, self_similarity
from cai.config import Guard
from cai.contracts.policies import PolicyResult, RLSettings
from cai.data.sources import Corpus
from cai.dialogue import to_text
from cai.evasiveness.boilerplate import recurrence
from cai.evasiveness.classifier import classify
from cai.jsonl import Rows, to_json
from cai.lm.generate import Sampling
from cai.lm.heads import save_model
from cai.lm.load import LanguageModel
from cai.lm.packing import Tree
from cai.pipeline.stage import Job
from cai.results.systems import Transcript
from cai.sampling.replies import sample_replies
from cai.seeds import seed_of
from cai.training.iteration import Roles
from cai.training.ppo import PPOModule
from cai.training.rollouts import RewardModel

log = logging.getLogger(__name__)

PROMPTS = 16
"""Held-out prompts looked at, half of them red-team."""
MIN_PROMPTS = 4
"""Fewer say nothing."""
SIGNIFICANT = 1.96
"""Standard errors by which the twin must have fallen."""


@dataclass(frozen=True)
class Surroundings:
    """Where a look takes its prompts from and where it writes to."""

    corpus: Corpus
    out: PolicyResult
    job: Job


class GoodhartWatch(L.Callback):
    """Samples from the policy on held-out prompts and compares the PM's view with the twin's."""

    def __init__(
        self,
        settings: RLSettings,
        model: LanguageModel,
        roles: Roles,
        twin: RewardModel,
        surroundings: Surroundings,
    ) -> None:
        """Fix the prompts and their seeds, so that looks differ by the policy alone."""
        self.out, self.job = surroundings.out, surroundings.job
        self.settings, self.model, self.roles, self.twin = settings, model, roles, twin
        corpus = surroundings.corpus
        helpful = [example.prompt for example in corpus.helpful.validation]
        self.red_team = corpus.red_team.validation[: PROMPTS // 2]
        self.prompts = self.red_team + helpful[: PROMPTS - len(self.red_team)]

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *rest: Any
    ) -> None:
        """Look every ``rl.watch.evaluate_every`` iterations; end the training if it should."""
        assert isinstance(pl_module, PPOModule)
        step = len(pl_module.history) - 1
        if (step + 1) % self.settings.rl.watch.evaluate_every or pl_module.stopped:
            return
        pl_module.stopped = parallel.broadcast(self.look(pl_module, step))
        trainer.should_stop = trainer.should_stop or pl_module.stopped

    def look(self, module: PPOModule, step: int) -> bool:
        """Look, keep a snapshot, and say whether training should end."""
        values, rows = self._look(step)
        looks = [row for row in module.history if "watch_score" in row]
        module.history[-1].update(values)
        self.job.tracker.metrics(values, step)
        self.job.tracker.table("transcripts", to_json(rows, list[Transcript]), step)
        folder = self._snapshot(step)
        folder.mkdir(parents=True, exist_ok=True)
        _transcripts(folder).write(rows)
        if looks:
            best = int(max(looks, key=lambda row: row["twin_score"])["step"])
            if overoptimised(_transcripts(self._snapshot(best)).read(), rows):
                return self._act(self.settings.rl.watch.guard, best, step)
        save_model(self.model, self.roles.policy, folder)
        return False

    def _snapshot(self, step: int) -> Path:
        return self.out.snapshots / f"{step + 1:05d}"

    def transcripts(self) -> list[Transcript]:
        """Return the replies of every look."""
        folders = sorted(path.parent for path in self.out.snapshots.glob("*/transcripts.jsonl"))
        return [row for folder in folders for row in _transcripts(folder).read()]

    def _look(self, step: int) -> tuple[dict[str, float], list[Transcript]]:
        rollout, model = self.settings.rl.rollout, self.model
        talks = [prompt.conversation for prompt in self.prompts]
        seeds = [seed_of(self.settings.seed, "watch", prompt.id) for prompt in self.prompts]
        sampling = Sampling(rollout.reply_tokens, rollout.min_reply_tokens, rollout.temperature)
        replies = sample_replies(model, self.roles.policy, talks, seeds, sampling)
        trees = [
            Tree(model.chat.prompt(talk), [reply.tokens])
            for talk, reply in zip(talks, replies, strict=True)
        ]
        tokens = self.job.hardware.micro_tokens
        scores = self.roles.reward.score(trees, tokens).tolist()
        twins = self.twin.score(trees, tokens).tolist()
        texts = [reply.text for reply in replies]
        verdicts = [classify(to_text(t), text) for t, text in zip(talks, texts, strict=True)]
        red = len(self.red_team)
        values = {
            "watch_score": statistics.fmean(scores),
            "twin_score": statistics.fmean(twins),
            "twin_gap": statistics.fmean(scores) - statistics.fmean(twins),
            "evasiveness": statistics.fmean(float(v.evasive) for v in verdicts[:red]),
            "boilerplate": statistics.fmean(float(v.boilerplate) for v in verdicts),
            "recurrence": recurrence(texts).share,
            "distinct_2": distinct_n(texts, 2),
            "self_similarity": self_similarity(texts),
        }
        rows = [
            Transcript(step + 1, prompt.id, prompt.conversation, text, score, twin)
            for prompt, text, score, twin in zip(self.prompts, texts, scores, twins, strict=True)
        ]
        return values, rows

    def _act(self, guard: Guard, good: int, step: int) -> bool:
        """Do what ``rl.watch.guard`` says about a twin that falls while the score rises."""
        if guard is Guard.off:
            return False
        log.warning(
            "rl: from iteration %d to %d the score rose and the twin's fell (rl.watch.guard=%s)",
            good + 1, step + 1, guard.value,
        )  # fmt: skip
        if guard is Guard.roll_back:
            self.model.load_saved(self.roles.policy, self._snapshot(good))
        return guard in {Guard.stop, Guard.roll_back}


def _transcripts(folder: Path) -> Rows[Transcript]:
    return Rows(folder / "transcripts.jsonl", Transcript)


def overoptimised(before: Sequence[Transcript], now: Sequence[Transcript]) -> bool:
    """Tell whether the twin has fallen while the score of the training PM rose.

    Both looks use the same prompts and the same noise, so the differences are paired: the fall
    must exceed what chance gives once in forty looks.

    Args:
        before: Rows of an earlier look.
        now: Rows of this look, in the same order.
    """
    rise = [row.score - old.score for old, row in zip(before, now, strict=True)]
    fall = [old.twin_score - row.twin_score for old, row in zip(before, now, strict=True)]
    if len(fall) < MIN_PROMPTS or statistics.fmean(rise) <= 0:
        return False
    error = statistics.stdev(fall) / math.sqrt(len(fall))
    return bool(statistics.fmean(fall) > max(SIGNIFICANT * error, 1e-9))
