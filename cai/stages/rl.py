"""The policy: PPO against the preference model under the twin's eyes, or DPO as a baseline."""

from __future__ import annotations

from pathlib import Path

from cai.config import CriticStart, Policy
from cai.contracts.policies import PolicyResult, RLInputs, RLSettings
from cai.data.records import Comparison
from cai.data.sources import Corpus, load_corpus
from cai.errors import UserError
from cai.lm.heads import ScalarHead, load_head, save_model
from cai.lm.load import LanguageModel, has_adapter, load_chat
from cai.pipeline.stage import Job
from cai.results.common import Numbers
from cai.sampling.fitting import Fitting, Rooms
from cai.sampling.prompts import EncodedPrompts
from cai.sampling.speaker import load_speaker
from cai.seeds import seed_of
from cai.training.data import Order
from cai.training.dpo import DPOModule, DPORoles
from cai.training.iteration import Prompts, Roles
from cai.training.ppo import PPOModule
from cai.training.preference import PairExample, pair_tree
from cai.training.reward import load_reward_model
from cai.training.rollouts import RewardModel
from cai.training.trainer import Fit, fit, seed_everything
from cai.training.watch import GoodhartWatch, Surroundings

POLICY, REFERENCE, CRITIC = "policy", "reference", "critic"


def notes(settings: RLSettings) -> list[str]:
    """Say which rows do not fit; DPO reads comparisons that an earlier stage has fitted."""
    if settings.recipe.policy is Policy.dpo:
        return []
    fitting = Fitting(load_chat(settings.model), settings.data.too_long, "rl")
    return fitting.notes(load_corpus(settings.data), _rooms(settings))


def _rooms(settings: RLSettings) -> Rooms:
    return dict.fromkeys(("red_team", "helpful"), settings.rl.rollout.reply_tokens)


def run(settings: RLSettings, inputs: RLInputs, out: PolicyResult, job: Job) -> None:
    """Train the policy by the recipe's method; keep its history and sample transcripts."""
    seed_everything(settings.seed)
    model = load_speaker(settings.model, job)
    train = {Policy.ppo: _train_by_ppo, Policy.dpo: _train_by_dpo}[settings.recipe.policy]
    history = train(settings, inputs, model, out, job)
    save_model(model, POLICY, out.model)
    out.history.write(history)


def _train_by_ppo(
    settings: RLSettings, inputs: RLInputs, model: LanguageModel, out: PolicyResult, job: Job
) -> list[Numbers]:
    rl = settings.rl
    fitting = Fitting(model.chat, settings.data.too_long, "rl")
    corpus = fitting.corpus(load_corpus(settings.data), _rooms(settings))
    reward = load_reward_model(job.hardware, model, inputs.pm, "model")
    if reward is None:
        raise UserError("the pm stage has no preference model: delete its result and run again")
    roles = _cast(settings, model, inputs, reward)
    order = Order(job.hardware.micro_tokens, seed_of(settings.seed, "rl"))
    module = PPOModule(model, roles, _prompts(model, corpus), rl, order)
    twin = load_reward_model(job.hardware, model, inputs.pm, "twin") or reward
    watch = GoodhartWatch(settings, model, roles, twin, Surroundings(corpus, out, job))
    training = Fit("rl", out.path, job.tracker.metrics, rl.watch.evaluate_every, (watch,))
    fit(module, training, job.hardware, job.trainer)
    save_model(model, CRITIC, out.critic, roles.critic_head)
    out.transcripts.write(watch.transcripts())
    return module.history


def _train_by_dpo(
    settings: RLSettings, inputs: RLInputs, model: LanguageModel, out: PolicyResult, job: Job
) -> list[Numbers]:
    """Learn from the comparisons of the PM's half; the twin's half stays unseen."""
    rl = settings.rl
    seed = seed_of(settings.seed, "rl", "adapter")
    reference = _start_from(model, inputs.start.model, seed, rl.full_finetuning)
    comparisons = map(Comparison.from_row, inputs.pm.named("model").comparisons.read())
    pairs = [PairExample(pair_tree(model, c), c.probability, 1.0, c.source) for c in comparisons]
    order = Order(job.hardware.micro_tokens, seed_of(settings.seed, "rl"))
    module = DPOModule(model, DPORoles(POLICY, reference), pairs, rl.dpo, order)
    with model.use(POLICY):
        training = Fit("rl", out.path, job.tracker.metrics, rl.watch.evaluate_every)
        fit(module, training, job.hardware, job.trainer)
    return module.history


def _start_from(model: LanguageModel, start: Path, seed: int, whole: bool) -> str | None:
    """Add the policy as a copy of its start, and the start as its reference; return its name."""
    if whole:  # the reference is a second copy, so that the KL begins at 0 to the bit
        for name in (POLICY, REFERENCE):
            model.add_whole(name, start)
        return REFERENCE
    model.add_adapter(POLICY, seed, start)
    if not has_adapter(start):
        return None
    model.add_adapter(REFERENCE, seed, start)
    return REFERENCE


def _cast(
    settings: RLSettings, model: LanguageModel, inputs: RLInputs, reward: RewardModel
) -> Roles:
    """Give every role its adapter on the one base."""
    pm = inputs.pm.named("model")
    seed = seed_of(settings.seed, "rl", "adapter")
    reference = _start_from(model, inputs.start.model, seed, settings.rl.full_finetuning)
    from_pm = settings.rl.critic.start is CriticStart.pm
    if from_pm and reward.speaker is not None:
        raise UserError(
            "rl.critic.start=pm needs a preference model on the policy's base: set "
            "rl.critic.start=zero, or leave pm.base out"
        )
    if from_pm and not has_adapter(pm.path):
        raise UserError(
            "rl.critic.start=pm needs a preference model that is an adapter: set "
            "rl.critic.start=zero, or pm.full_finetuning=false"
        )
    model.add_adapter(CRITIC, seed_of(seed, CRITIC), pm.path if from_pm else None)
    head = load_head(pm.path, model.hidden_size) if from_pm else ScalarHead(model.hidden_size, None)
    head.offset = pm.metrics.read().mean if from_pm else 0.0
    return Roles(POLICY, reference, CRITIC, head.to(model.device), reward)


def _prompts(model: LanguageModel, corpus: Corpus) -> Prompts:
    helpful = [example.prompt for example in corpus.helpful.train]
    red_team = corpus.red_team.train
    return Prompts(EncodedPrompts(model.chat, red_team), EncodedPrompts(model.chat, helpful))
