"""The policy: PPO against the preference model under the twin's eyes, or DPO as a baseline."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from cai.artifacts import Artifact, read_jsonl, write_jsonl
from cai.config import Config, CriticStart, HardwareConfig, Policy
from cai.data.records import Comparison
from cai.data.sources import Corpus, load_corpus
from cai.errors import UserError
from cai.lm.heads import (
    ScalarHead,
    has_scalar_model,
    load_head,
    load_scalar_model,
    save_model,
)
from cai.lm.load import LanguageModel, has_adapter, load_model
from cai.seeds import seed_of
from cai.stages.pm import COMPARISONS, adapter_name
from cai.tracking import Tracker
from cai.training.data import Order
from cai.training.dpo import DPOModule, DPORoles
from cai.training.iteration import Roles
from cai.training.ppo import PPOModule, Prompts
from cai.training.preference import LabelledPair, pair_tree
from cai.training.rollouts import RewardModel
from cai.training.trainer import Fit, fit, seed_everything
from cai.training.watch import GoodhartWatch, Surroundings

POLICY, REFERENCE, CRITIC = "policy", "reference", "critic"


def run(config: Config, inputs: dict[str, Artifact], out: Path, tracker: Tracker) -> None:
    """Train the policy by the recipe's method; keep its history and sample transcripts."""
    assert config.rl is not None
    seed_everything(config.seed)
    model = load_model(config.model, config.hardware)
    train = {Policy.ppo: _train_by_ppo, Policy.dpo: _train_by_dpo}[config.recipe.policy]
    history = train(config, inputs, model, out, tracker)
    save_model(model, POLICY, out / "model")
    write_jsonl(out / "history.jsonl", history)


def _train_by_ppo(
    config: Config,
    inputs: dict[str, Artifact],
    model: LanguageModel,
    out: Path,
    tracker: Tracker,
) -> list[dict[str, float]]:
    settings = config.rl
    assert settings is not None
    corpus = load_corpus(config.data)
    roles = _cast(config, model, inputs[config.recipe.start.value], inputs["pm"])
    order = Order(config.hardware.micro_tokens, seed_of(config.seed, "rl"))
    module = PPOModule(model, roles, _prompts(model, corpus), settings, order)
    twin = load_reward_model(config.hardware, model, inputs["pm"].path, "twin") or roles.reward
    watch = GoodhartWatch(config, model, roles, twin, Surroundings(corpus, out, tracker))
    job = Fit("rl", out, tracker.metrics, settings.evaluate_every, (watch,))
    fit(module, job, config.hardware, config.trainer)
    save_model(model, CRITIC, out / "critic", roles.critic_head)
    write_jsonl(out / "transcripts.jsonl", watch.transcripts())
    return module.history


def _train_by_dpo(
    config: Config,
    inputs: dict[str, Artifact],
    model: LanguageModel,
    out: Path,
    tracker: Tracker,
) -> list[dict[str, float]]:
    """Learn from the comparisons of the PM's half; the twin's half stays unseen."""
    settings = config.rl
    assert settings is not None
    start = inputs[config.recipe.start.value]
    reference = _start_from(model, start, seed_of(config.seed, "rl", "adapter"))
    rows = read_jsonl(inputs["pm"].path / "model" / COMPARISONS)
    comparisons = [Comparison.from_row(row) for row in rows]
    pairs = [LabelledPair(pair_tree(model, c), c.probability, 1.0, c.source) for c in comparisons]
    order = Order(config.hardware.micro_tokens, seed_of(config.seed, "rl"))
    module = DPOModule(model, DPORoles(POLICY, reference), pairs, settings.dpo, order)
    with model.use(POLICY):
        job = Fit("rl", out, tracker.metrics, settings.evaluate_every)
        fit(module, job, config.hardware, config.trainer)
    return module.history


def _start_from(model: LanguageModel, start: Artifact, seed: int) -> str | None:
    """Add the policy as a copy of its start, and the start as its reference; return its name."""
    model.add_adapter(POLICY, seed, start.path / "model")
    if not has_adapter(start.path / "model"):
        return None
    model.add_adapter(REFERENCE, seed, start.path / "model")
    return REFERENCE


def _cast(config: Config, model: LanguageModel, start: Artifact, pm: Artifact) -> Roles:
    """Give every role its adapter on the one base."""
    assert config.rl is not None
    seed = seed_of(config.seed, "rl", "adapter")
    reference = _start_from(model, start, seed)
    from_pm = config.rl.critic.start is CriticStart.pm
    if from_pm and not has_adapter(pm.path / "model"):
        raise UserError(
            "rl.critic.start=pm needs a preference model that is an adapter: set "
            "rl.critic.start=zero, or pm.full_finetuning=false"
        )
    model.add_adapter(CRITIC, seed_of(seed, CRITIC), pm.path / "model" if from_pm else None)
    head = (
        load_head(pm.path / "model", model.hidden_size)
        if from_pm
        else ScalarHead(model.hidden_size, None)
    )
    reward = load_reward_model(config.hardware, model, pm.path, "model")
    assert reward is not None
    head.offset = held_out_mean(pm.path / "model") if from_pm else 0.0
    return Roles(POLICY, reference, CRITIC, head.to(model.device), reward)


def load_reward_model(
    hardware: HardwareConfig, model: LanguageModel, folder: Path, name: str
) -> RewardModel | None:
    """Load a PM, with all its members, from the folder of the pm stage; None if it has none."""
    paths = sorted(p for p in (folder / name, *folder.glob(f"{name}-*")) if has_scalar_model(p))
    if not paths:
        return None
    members = [load_scalar_model(model, adapter_name(path), path, hardware) for path in paths]
    # Scores are averaged over the members, and so is the level that is taken off.
    mean = statistics.fmean(held_out_mean(path) for path in paths)
    lower_bound = json.loads((folder / "settings.json").read_text())["lower_bound"]
    return RewardModel(members, mean, lower_bound)


def held_out_mean(folder: Path) -> float:
    """Read the mean score that one PM gives to held-out replies."""
    return float(json.loads((folder / "metrics.json").read_text())["mean"])


def _prompts(model: LanguageModel, corpus: Corpus) -> Prompts:
    red_team = [model.chat.prompt(prompt.conversation) for prompt in corpus.red_team.train]
    helpful = [model.chat.prompt(e.prompt.conversation) for e in corpus.helpful.train]
    return Prompts(red_team, helpful)
