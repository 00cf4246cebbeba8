"""The systems that an evaluation compares, and their replies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from cai.config import EvaluateConfig, HardwareConfig
from cai.contracts.policies import EvaluateInputs, EvaluateSettings, Evaluation, PolicyResult
from cai.data.records import Prompt
from cai.data.sets import without_repeats
from cai.data.sources import Corpus
from cai.dialogue import to_text
from cai.evasiveness.classifier import Read, Reading
from cai.evasiveness.reader import reader
from cai.lm.generate import Sampling
from cai.lm.load import LanguageModel, is_tuned
from cai.lm.packing import Tree
from cai.results.common import SL_CAI
from cai.results.systems import GreedyReply, Reply
from cai.sampling.replies import SampledReply, sample_replies
from cai.sampling.shards import make_rows
from cai.seeds import seed_of
from cai.training.rollouts import RewardModel


@dataclass(frozen=True)
class System:
    """One assistant.

    Attributes:
        name: In tables and plots.
        artifact: The result that made it; the same one in two runs is the same player.
        adapter: On the shared base; ``None`` is the bare base.
        best_of: Replies to sample, of which the PM chooses one.
    """

    name: str
    artifact: str
    adapter: str | None
    best_of: int = 1


@dataclass(frozen=True)
class Context:
    """What every part of an evaluation works with.

    Attributes:
        settings: Of the stage.
        hardware: How it runs.
        model: The base that holds all systems.
        systems: The players.
    """

    settings: EvaluateSettings
    hardware: HardwareConfig
    model: LanguageModel
    systems: Sequence[System]

    @property
    def evaluate(self) -> EvaluateConfig:
        """The stage's own settings."""
        return self.settings.evaluate

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.settings.seed

    @property
    def micro_tokens(self) -> int:
        """Padded tokens in one forward pass."""
        return self.hardware.micro_tokens


def load_systems(
    settings: EvaluateSettings, model: LanguageModel, inputs: EvaluateInputs
) -> list[System]:
    """Load the helpful assistant, SL-CAI if the recipe has it, the policy, and what else is asked.

    That is a best-of-N of RL's start, and the policy's snapshots.
    """
    results = {"helpful": inputs.helpful, SL_CAI: inputs.sft, settings.recipe.name: inputs.rl}
    systems = []
    for name, result in results.items():
        if result is None:
            continue
        adapter = f"system_{result.stage}" if is_tuned(result.model) else None
        if adapter is not None:
            model.add_adapter(adapter, 0, result.model)
        systems.append(System(name, result.name, adapter))
    if (n := settings.evaluate.baselines.best_of) > 1:
        start = systems[-2]  # what RL started from
        systems.append(System(f"best_of_{n}", f"{start.artifact}-best-of-{n}", start.adapter, n))
    return systems + _snapshots(settings, model, inputs.rl)


def _snapshots(
    settings: EvaluateSettings, model: LanguageModel, policy: PolicyResult
) -> list[System]:
    """Load snapshots of the policy on its way, evenly spread, each a system of its own."""
    kept = [path for path in sorted(policy.snapshots.glob("*")) if is_tuned(path)]
    n = min(settings.evaluate.baselines.snapshots, len(kept))
    systems = []
    for folder in (kept[len(kept) * (k + 1) // n - 1] for k in range(n)):
        step = int(folder.name)
        adapter = f"snapshot_{step}"
        model.add_adapter(adapter, 0, folder)
        systems.append(System(f"{settings.recipe.name}@{step}", f"{policy.name}@{step}", adapter))
    return systems


def held_out_prompts(n: int, corpus: Corpus) -> dict[str, list[Prompt]]:
    """Return ``n`` prompts of each kind that no stage trains on: test first, then validation."""
    borderline, helpful = corpus.borderline, corpus.helpful
    return {
        "red_team": (corpus.red_team.test + corpus.red_team.validation)[:n],
        # Nothing is ever trained on these, so all of them are held out.
        "borderline": (borderline.test + borderline.validation + borderline.train)[:n],
        "helpful": without_repeats(e.prompt for e in helpful.test + helpful.validation)[:n],
    }


class _Question(NamedTuple):
    """A prompt of a set to a system, for one of its samples."""

    system: System
    set: str
    prompt: Prompt
    sample: int


def sample_all(
    context: Context, prompts: dict[str, list[Prompt]], out: Evaluation, pm: RewardModel
) -> list[Reply]:
    """Sample every system's replies to every held-out prompt, and classify them."""
    read = reader(context.evaluate.classifier, context.model)
    asked = [
        _Question(system, kind, prompt, sample)
        for system in context.systems
        for kind, chosen in prompts.items()
        for prompt in chosen
        for sample in range(context.evaluate.samples)
    ]

    def make(part: range) -> list[Reply]:
        rows: list[Reply] = []
        for system in context.systems:
            chosen = [asked[i] for i in part if asked[i].system is system]
            if chosen:
                rows += _rows(chosen, _replies(context, system, chosen, pm), read)
        return rows

    return make_rows(out.sampled, len(asked), context.evaluate.batch_size, make, "evaluate")


def _rows(asked: Sequence[_Question], replies: Sequence[SampledReply], read: Read) -> list[Reply]:
    talks = [to_text(question.prompt.conversation) for question in asked]
    verdicts = read([(talk, reply.text) for talk, reply in zip(talks, replies, strict=True)])
    return [_row(*made) for made in zip(asked, replies, verdicts, strict=True)]


def _row(question: _Question, reply: SampledReply, verdict: Reading) -> Reply:
    return Reply(
        system=question.system.name,
        set=question.set,
        prompt_id=question.prompt.id,
        kind=question.prompt.kind,
        sample=question.sample,
        messages=question.prompt.conversation,
        response=reply.text,
        tokens=reply.tokens,
        logprob=reply.logprob,
        style=verdict.style.value,
        refusal=verdict.refusal,
        evasive=verdict.evasive,
        boilerplate=verdict.boilerplate,
    )


def _replies(
    context: Context, system: System, asked: Sequence[_Question], pm: RewardModel
) -> list[SampledReply]:
    """Sample a system's replies; of several to one prompt the PM's favourite is kept."""
    model, settings = context.model, context.evaluate
    talks = [question.prompt.conversation for question in asked]
    sampling = Sampling(settings.reply_tokens, 1, settings.temperature)
    rounds = []
    for n in range(system.best_of):
        # The same noise for every system, so that differences are theirs.
        seeds = [
            seed_of(context.seed, "evaluate", q.prompt.id, q.sample, *([n] if n else []))
            for q in asked
        ]
        rounds.append(sample_replies(model, system.adapter, talks, seeds, sampling))
    if system.best_of == 1:
        return rounds[0]
    prompts = [model.chat.prompt(talk) for talk in talks]
    scores = torch.stack(
        [
            pm.score(
                [Tree(p, [reply.tokens]) for p, reply in zip(prompts, replies, strict=True)],
                context.micro_tokens,
            )
            for replies in rounds
        ]
    )
    return [rounds[n][i] for i, n in enumerate(scores.argmax(0).tolist())]


def reply_trees(model: LanguageModel, rows: Sequence[Reply | GreedyReply]) -> list[Tree]:
    """Return prompts and replies as the ids that were sampled."""
    return [Tree(model.chat.prompt(row.messages), [row.tokens or []]) for row in rows]


def rows_of(
    rows: Sequence[Reply], *, system: str | None = None, kind: str | None = None
) -> list[Reply]:
    """Return the replies of a system, or to a set of prompts, or both."""
    return [
        row
        for row in rows
        if (system is None or row.system == system) and (kind is None or row.set == kind)
    ]
