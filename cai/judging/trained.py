"""Judges that are adapters on the run's own base, trained by the judge stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cai.config import HardwareConfig
from cai.contracts.judges import JudgeModels
from cai.judging.judge import Judged
from cai.lm.heads import load_scalar_model
from cai.lm.language_model import LanguageModel
from cai.lm.packing import Tree
from cai.results.common import AXES
from cai.training.rollouts import RewardModel


@dataclass(frozen=True)
class TrainedJudge:
    """One reward model for each axis.

    Attributes:
        model: Encodes replies.
        rewards: By axis.
        max_tokens: Padded tokens in one forward pass.
    """

    model: LanguageModel
    rewards: Mapping[str, RewardModel]
    max_tokens: int

    def score(self, axis: str, replies: Sequence[Judged]) -> list[float]:
        """Score replies; a prompt that is too long for the base is read from its end."""
        if not replies:
            return []
        chat = self.model.chat
        trees = [Tree(chat.prompt(r.conversation), [chat.response(r.reply)]) for r in replies]
        return [float(s) for s in self.rewards[axis].score(trees, self.max_tokens)]


def load_trained(
    model: LanguageModel, judge: JudgeModels, hardware: HardwareConfig
) -> TrainedJudge:
    """Load both reward models onto a base."""
    rewards = {}
    for axis in AXES:
        folder = judge.axis(axis)
        network = load_scalar_model(model, f"judge_{axis}", folder.path, hardware)
        rewards[axis] = RewardModel([network], folder.metrics.read().mean, 0.0)
    return TrainedJudge(model, rewards, hardware.micro_tokens)
