"""Policies and the evaluation of all systems."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cai import results
from cai.config import (
    ConstitutionConfig,
    DataConfig,
    EvaluateConfig,
    JudgeConfig,
    ModelConfig,
    RecipeConfig,
    RLConfig,
)
from cai.contracts.assistants import SLCAI, HelpfulAssistant, Revisions, Trained
from cai.contracts.judges import JudgeModels
from cai.contracts.preferences import Labels, PreferenceModels
from cai.jsonl import Document, Rows
from cai.pipeline.stage import Result

# rl: the policy


@dataclass(frozen=True)
class RLSettings:
    """What the rl stage reads."""

    model: ModelConfig
    data: DataConfig
    recipe: RecipeConfig
    rl: RLConfig
    seed: int

    def __post_init__(self) -> None:
        """Check that what should be trained can be."""
        if self.rl.full_finetuning:
            self.model.check_trainable("rl.full_finetuning")


@dataclass(frozen=True)
class RLInputs:
    """Results that the rl stage reads: of the two assistants the one that it starts from."""

    pm: PreferenceModels
    helpful: HelpfulAssistant | None
    sft: SLCAI | None

    @property
    def start(self) -> Trained:
        """The assistant that RL starts from, and its reference."""
        start = self.sft or self.helpful
        if start is None:
            raise ValueError("RL needs an assistant to start from")
        return start


class PolicyResult(Trained):
    """The trained policy, its critic, and what it said on its way."""

    @property
    def critic(self) -> Path:
        """The folder of the critic."""
        return self.path / "critic"

    @property
    def transcripts(self) -> Rows[results.systems.Transcript]:
        """Replies at every look of the Goodhart watch."""
        return Rows(self.path / "transcripts.jsonl", results.systems.Transcript)

    @property
    def snapshots(self) -> Path:
        """The folder of the policies on the way."""
        return self.path / "snapshots"


# evaluate: the systems side by side


@dataclass(frozen=True)
class EvaluateSettings:
    """What the evaluate stage reads."""

    model: ModelConfig
    constitution: ConstitutionConfig
    data: DataConfig
    recipe: RecipeConfig
    judge: JudgeConfig
    evaluate: EvaluateConfig
    seed: int


@dataclass(frozen=True)
class EvaluateInputs:
    """Results that the evaluate stage reads; some recipes have no supervised phase or labels."""

    helpful: HelpfulAssistant
    judge: JudgeModels
    pm: PreferenceModels
    rl: PolicyResult
    revise: Revisions | None
    sft: SLCAI | None
    feedback: Labels | None


class Evaluation(Result):
    """Replies of all systems, how they were judged, and what the report shows besides."""

    @property
    def sampled(self) -> Rows[results.systems.Reply]:
        """Replies with their tokens; gone when the stage has finished."""
        return Rows(self.path / "sampled.jsonl", results.systems.Reply)

    @property
    def sampled_greedy(self) -> Rows[results.systems.GreedyReply]:
        """Greedy replies with their tokens; gone when the stage has finished."""
        return Rows(self.path / "sampled_greedy.jsonl", results.systems.GreedyReply)

    @property
    def replies(self) -> Rows[results.systems.Reply]:
        """Every system's replies to every prompt."""
        return Rows(self.path / "replies.jsonl", results.systems.Reply)

    @property
    def greedy(self) -> Rows[results.systems.GreedyReply]:
        """Greedy replies to red-team prompts, where harmfulness is measured."""
        return Rows(self.path / "greedy.jsonl", results.systems.GreedyReply)

    @property
    def matches(self) -> Rows[results.systems.Match]:
        """Comparisons by all judges."""
        return Rows(self.path / "matches.jsonl", results.systems.Match)

    @property
    def stances(self) -> Rows[results.systems.Stance]:
        """Answers to everyday questions by who asks."""
        return Rows(self.path / "persona.jsonl", results.systems.Stance)

    @property
    def paper_answers(self) -> Rows[results.systems.PaperAnswer]:
        """Answers to the paper's tests."""
        return Rows(self.path / "paper_answers.jsonl", results.systems.PaperAnswer)

    @property
    def paper_tests(self) -> Document[results.systems.PaperTests]:
        """How well the paper's tests were answered."""
        return Document(self.path / "paper_tests.json", results.systems.PaperTests)

    @property
    def regressor(self) -> Path:
        """The folder of the model that predicts harmfulness."""
        return self.path / "harmfulness"

    @property
    def regressor_metrics(self) -> Document[results.systems.HarmfulnessMetrics]:
        """How good that model is; written last in its folder."""
        return Document(self.regressor / "metrics.json", results.systems.HarmfulnessMetrics)

    @property
    def regressor_history(self) -> Rows[results.common.Numbers]:
        """The training of that model."""
        return Rows(self.regressor / "history.jsonl", results.common.Numbers)

    @property
    def summary(self) -> Document[results.systems.Summary]:
        """Everything in short."""
        return Document(self.path / "summary.json", results.systems.Summary)

    @property
    def upstream(self) -> Upstream:
        """What earlier stages left, so that the result stands alone."""
        return Upstream(self.path / "upstream")


@dataclass(frozen=True)
class Upstream:
    """Copies of what the report shows of earlier stages."""

    path: Path

    @property
    def labels(self) -> Document[results.labels.LabelReport]:
        """How far the labels can be trusted."""
        return Document(self.path / "feedback.json", results.labels.LabelReport)

    @property
    def pm(self) -> Document[results.labels.PMMetrics]:
        """What the PM and its twin know."""
        return Document(self.path / "pm.json", results.labels.PMMetrics)

    @property
    def judge(self) -> Document[results.judge.JudgeReport]:
        """Who judges, and how far the judge can be trusted."""
        return Document(self.path / "judge.json", results.judge.JudgeReport)

    @property
    def revisions(self) -> Document[results.systems.RevisionSummary]:
        """How revisions score, and some of them."""
        return Document(self.path / "revise.json", results.systems.RevisionSummary)

    @property
    def history(self) -> Rows[results.common.Numbers]:
        """The policy's training."""
        return Rows(self.path / "rl.jsonl", results.common.Numbers)

    @property
    def transcripts(self) -> Rows[results.systems.Transcript]:
        """What the policy said on its way."""
        return Rows(self.path / "rl_transcripts.jsonl", results.systems.Transcript)

    @property
    def harmfulness(self) -> Document[results.systems.HarmfulnessMetrics]:
        """How good the regressor is."""
        return Document(self.path / "harmfulness.json", results.systems.HarmfulnessMetrics)
