"""The systems that an evaluation compares, and their replies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cai.artifacts import Artifact
from cai.config import Config
from cai.data.records import Prompt
from cai.data.sources import Corpus
from cai.dialogue import Conversation, from_messages, to_messages, to_text
from cai.evasiveness.classifier import classify
from cai.lm.generate import Sampling
from cai.lm.load import LanguageModel, has_adapter
from cai.lm.packing import Tree
from cai.sampling.replies import Reply, sample_replies
from cai.sampling.shards import Row, make_rows
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


def load_systems(config: Config, model: LanguageModel, inputs: dict[str, Artifact]) -> list[System]:
    """Load the helpful assistant, SL-CAI if the recipe has it, the policy, and what else is asked.

    That is a best-of-N of RL's start, and the policy's snapshots.
    """
    names = {"helpful": "helpful", "sft": "sl_cai", "rl": config.recipe.name}
    systems = []
    for stage, name in names.items():
        if stage not in inputs:
            continue
        folder = inputs[stage].path / "model"
        adapter = f"system_{stage}" if has_adapter(folder) else None
        if adapter is not None:
            model.add_adapter(adapter, 0, folder)
        systems.append(System(name, inputs[stage].name, adapter))
    assert config.evaluate is not None
    if (n := config.evaluate.best_of) > 1:
        start = systems[-2]  # what RL started from
        systems.append(System(f"best_of_{n}", f"{start.artifact}-best-of-{n}", start.adapter, n))
    return systems + _snapshots(config, model, inputs["rl"])


def _snapshots(config: Config, model: LanguageModel, policy: Artifact) -> list[System]:
    """Load snapshots of the policy on its way, evenly spread, each a system of its own."""
    assert config.evaluate is not None
    kept = [path for path in sorted(policy.path.glob("snapshots/*")) if has_adapter(path)]
    n = min(config.evaluate.snapshots, len(kept))
    systems = []
    for folder in (kept[len(kept) * (k + 1) // n - 1] for k in range(n)):
        step = int(folder.name)
        adapter = f"snapshot_{step}"
        model.add_adapter(adapter, 0, folder)
        systems.append(System(f"{config.recipe.name}@{step}", f"{policy.name}@{step}", adapter))
    return systems


def held_out_prompts(config: Config, corpus: Corpus) -> dict[str, list[Prompt]]:
    """Return the prompts of each kind that no stage has trained on: test first, then validation."""
    assert config.evaluate is not None
    n = config.evaluate.prompts
    borderline = corpus.borderline
    return {
        "red_team": (corpus.red_team.test + corpus.red_team.validation)[:n],
        # Nothing is ever trained on these, so all of them are held out.
        "borderline": (borderline.test + borderline.validation + borderline.train)[:n],
        "helpful": [e.prompt for e in corpus.helpful.test + corpus.helpful.validation][:n],
    }


def sample_all(
    config: Config,
    model: LanguageModel,
    systems: list[System],
    prompts: dict[str, list[Prompt]],
    out: Path,
    pm: RewardModel,
) -> list[Row]:
    """Write ``replies.jsonl``: every system's replies to every held-out prompt, classified."""
    settings = config.evaluate
    assert settings is not None
    asked = [
        (system, kind, prompt, sample)
        for system in systems
        for kind, chosen in prompts.items()
        for prompt in chosen
        for sample in range(settings.samples)
    ]

    def make(part: range) -> list[Row]:
        rows: list[Row] = []
        for system in systems:
            chosen = [asked[i] for i in part if asked[i][0] is system]
            if not chosen:
                continue
            talks = [prompt.conversation for _, _, prompt, _ in chosen]
            # The same noise for every system, so that differences are theirs.
            keys = [(config.seed, "evaluate", prompt.id, sample) for _, _, prompt, sample in chosen]
            replies = _replies(config, model, system, (talks, keys), pm)
            for (_, kind, prompt, sample), reply in zip(chosen, replies, strict=True):
                verdict = classify(to_text(prompt.conversation), reply.text)
                rows.append(
                    {
                        "system": system.name,
                        "set": kind,
                        "prompt_id": prompt.id,
                        "kind": prompt.kind,
                        "sample": sample,
                        "messages": to_messages(prompt.conversation),
                        "response": reply.text,
                        "tokens": reply.tokens,
                        "style": str(verdict.style),
                        "refusal": verdict.refusal,
                        "evasive": verdict.evasive,
                        "boilerplate": verdict.boilerplate,
                    }
                )
        return rows

    path = out / "sampled.jsonl"
    return make_rows(path, len(asked), settings.batch_size, make, "evaluate")


def _replies(
    config: Config,
    model: LanguageModel,
    system: System,
    asked: tuple[Sequence[Conversation], Sequence[tuple[int | str, ...]]],
    pm: RewardModel,
) -> list[Reply]:
    """Sample a system's replies; of several to one prompt the PM's favourite is kept."""
    settings = config.evaluate
    assert settings is not None
    talks, keys = asked
    sampling = Sampling(settings.reply_tokens, 1, settings.temperature)
    rounds = []
    for n in range(system.best_of):
        seeds = [seed_of(*key, *([n] if n else [])) for key in keys]
        rounds.append(sample_replies(model, system.adapter, talks, seeds, sampling))
    if system.best_of == 1:
        return rounds[0]
    prompts = [model.chat.prompt(talk) for talk in talks]
    scores = torch.stack(
        [
            pm.score(
                [Tree(p, [reply.tokens]) for p, reply in zip(prompts, replies, strict=True)],
                config.hardware.micro_tokens,
            )
            for replies in rounds
        ]
    )
    return [rounds[n][i] for i, n in enumerate(scores.argmax(0).tolist())]


def reply_trees(model: LanguageModel, rows: list[Row]) -> list[Tree]:
    """Return prompts and replies as the ids that were sampled."""
    return [Tree(model.chat.prompt(talk_of(row)), [row["tokens"]]) for row in rows]


def talk_of(row: Row) -> Conversation:
    """Return the prompt of a row."""
    return from_messages(row["messages"])


def rows_of(rows: list[Row], **wanted: Any) -> list[Row]:
    """Return the rows with these values."""
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]
