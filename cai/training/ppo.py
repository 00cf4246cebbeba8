"""PPO against a preference model; one training step is one iteration."""

from __future__ import annotations

import copy
import logging
import math
import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cai import parallel
from cai.algorithms.masked import RunningMoments, moments, whiten
from cai.algorithms.ppo import (
    Advantages,
    gae,
    kl_estimates,
    penalise,
    token_rewards,
)
from cai.config import RLConfig
from cai.errors import UserError
from cai.lm.generate import Sampling
from cai.lm.load import LanguageModel
from cai.lm.packing import Tree, pack, shared_in_training
from cai.lm.score import Shaping
from cai.seeds import seed_of
from cai.training.base import TrainingModule, clip, parameters_of
from cai.training.data import IterationData, Order
from cai.training.iteration import (
    Prompts,
    Reading,
    Roles,
    UpdateStats,
    average,
    draw_prompts,
    kl_controller,
    read_rollouts,
    summarise,
)
from cai.training.optimizers import make_optimizer
from cai.training.ppo_update import Losses, Part, Portion, portions
from cai.training.rollouts import Rollouts, merge
from cai.training.undo import snapshot, take_back

log = logging.getLogger(__name__)

POLICY, CRITIC = 0, 1
"""Places of the two optimizers."""
EPSILON = 1e-6
"""Added to the root of the second moment, in both."""

Score = Callable[[Sequence[Tree]], Tensor]
"""Maps replies to scores [B]; the preference model, unless a programmed one takes its place."""


class PPOModule(TrainingModule):
    """Proximal policy optimisation of one adapter, with the others frozen beside it.

    Optimisation is manual: one training step is an iteration, which collects its own rollouts and
    makes many updates of two networks.
    """

    def __init__(
        self,
        model: LanguageModel,
        roles: Roles,
        prompts: Prompts,
        settings: RLConfig,
        order: Order,
    ) -> None:
        """Set up controllers and statistics.

        Args:
            model: Holds all adapters.
            roles: Their names.
            prompts: Of both kinds.
            settings: Of the stage.
            order: Size of a micro-batch, and the seed.

        Raises:
            UserError: If there are fewer replies than processes.
        """
        rollout = settings.rollout
        if rollout.prompts < parallel.world_size():
            raise UserError(
                f"rl.rollout.prompts={rollout.prompts} is too few for {parallel.world_size()} "
                "processes: start fewer, or raise it"
            )
        model.train_only(roles.policy, roles.critic)
        critic = [*model.weights_of(roles.critic), *roles.critic_head.parameters()]
        trained = {"policy": model.weights_of(roles.policy), "critic": critic}
        super().__init__(trained, IterationData(settings.iterations))
        self.automatic_optimization = False
        self._model, self._roles, self._prompts = model, roles, prompts
        self._settings, self._order = settings, order
        self._adamw = (settings.optimizer, settings.critic.optimizer)
        self.score: Score = lambda trees: roles.reward.score(trees, order.micro_tokens)
        self._shaping = Shaping(model.stop_ids, rollout.min_reply_tokens, rollout.temperature)
        self._losses = Losses(model, roles, settings, self._shaping)
        self.controller = kl_controller(settings.kl)
        self.score_moments = RunningMoments()
        self.stopped = False

    def training_step(self, step: int, batch_idx: int) -> None:
        """Make one iteration; one that goes wrong is taken back and tried once more.

        Raises:
            UserError: If it goes wrong again.
        """
        if self.stopped:
            self.trainer.should_stop = True
            return
        before, steering = snapshot(self._trained, self.trainer), copy.deepcopy(self._steering())
        for attempt in range(2):
            summary = self.iterate(step, attempt)
            if all(map(math.isfinite, summary.values())):
                break
            log.warning("rl: iteration %d gave numbers that are not finite; taken back", step)
            take_back(before, self._trained, self.trainer)
            self._steer(steering)
        else:
            raise UserError(
                f"rl diverged at iteration {step} twice: lower rl.optimizer.lr or "
                "rl.critic.optimizer.lr; the last good checkpoint is kept, and another "
                "rate starts afresh"
            )
        self.report(summary, step)

    def iterate(self, step: int, attempt: int = 0) -> dict[str, float]:
        """Roll out, reward, estimate advantages, update, steer the KL coefficient."""
        rollouts = self.collect(step, attempt)
        rewards = self.rewards(rollouts)
        advantages = self.advantages(rollouts, rewards)
        stats = self.improve(step, rollouts, advantages)
        kl = kl_estimates(rollouts.logp, rollouts.ref_logp, rollouts.mask)
        self.controller.update(float(kl.k1.mean()), len(rollouts.trees))
        coefficient = self.controller.coefficient
        return summarise(rollouts, rewards, advantages.returns, coefficient, stats)

    @torch.no_grad()
    def collect(self, step: int, attempt: int = 0) -> Rollouts:
        """Sample one reply per prompt and run every frozen model over it once.

        Each process does so for its share of the prompts and returns the rollouts of all, so that
        whatever is estimated from them, and whitened, is that of the whole batch.
        """
        prompts = self.prompts_of(step)
        seed = self._order.seed
        seeds = [seed_of(seed, "rollout", step, attempt, i) for i in range(len(prompts))]
        mine, numbers = parallel.share(prompts), parallel.share(seeds)
        with parallel.alone():
            own = self._roll_out(mine, numbers)
        return merge(parallel.all_gather(own))

    def _roll_out(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int]) -> Rollouts:
        settings, model = self._settings.rollout, self._model
        sampling = Sampling(settings.reply_tokens, settings.min_reply_tokens, settings.temperature)
        replies = model.sampler.generate(self._roles.policy, prompts, seeds, sampling)
        trees = [Tree(p, [reply.tokens]) for p, reply in zip(prompts, replies, strict=True)]
        how = Reading(self._order.micro_tokens, self._shaping)
        found = read_rollouts(model, self._roles, trees, replies, self.score(trees), how)
        reward = self._settings.reward
        scores = penalise(found.scores, ~found.ended, reward.missing_eos_penalty)
        scores = penalise(scores, found.repeats, reward.repetition_penalty)
        return found._replace(scores=scores)

    def prompts_of(self, step: int) -> list[Sequence[int]]:
        """Return the prompts of an iteration: a fixed share of each kind, in seeded order."""
        rollout = self._settings.rollout
        n_red = round(rollout.prompts * rollout.red_team_share)
        numbers = (n_red, rollout.prompts - n_red)
        pools = (self._prompts.red_team, self._prompts.helpful)
        return draw_prompts(pools, numbers, self._order.seed, step)

    def rewards(self, rollouts: Rollouts) -> Tensor:
        """Combine scores, scaled if asked for, with the KL penalty: [B, T]."""
        scores = rollouts.scores
        if self._settings.reward.scale:
            self.score_moments.update(moments(scores, torch.ones_like(scores, dtype=torch.bool)))
            scores = scores / self.score_moments.std
        return token_rewards(
            scores, rollouts.logp, rollouts.ref_logp, rollouts.mask, self.controller.coefficient
        )

    def advantages(self, rollouts: Rollouts, rewards: Tensor) -> Advantages:
        """Estimate advantages over the whole batch, whitened if asked for."""
        settings = self._settings.advantage
        estimate = gae(rewards, rollouts.values, rollouts.mask, settings.gamma, settings.gae_lambda)
        if not settings.whiten:
            return estimate
        return estimate._replace(advantages=whiten(estimate.advantages, rollouts.mask))

    def improve(self, step: int, rollouts: Rollouts, advantages: Advantages) -> UpdateStats:
        """Update both networks for several epochs; stop when the policy has moved too far."""
        settings = self._settings.ppo
        train_policy = step >= self._settings.critic.warmup_iterations
        done: list[UpdateStats] = []
        for epoch in range(settings.epochs):
            order = list(range(len(rollouts.trees)))
            random.Random(seed_of(self._order.seed, "minibatches", step, epoch)).shuffle(order)
            for part in range(settings.minibatches):
                rows = order[part :: settings.minibatches]
                if not rows:
                    continue
                done.append(self._minibatch(rows, rollouts, advantages, train_policy))
                if settings.stop_kl is not None and done[-1].approx_kl > settings.stop_kl:
                    return average(done)
        return average(done)

    def _minibatch(
        self, rows: list[int], rollouts: Rollouts, advantages: Advantages, train_policy: bool
    ) -> UpdateStats:
        """Make one clipped update of the policy and one of the critic."""
        totals = torch.zeros(6)
        shared = shared_in_training(rollouts.trees)
        for portion in portions(rows, rollouts, self._order.micro_tokens):
            packed = pack([rollouts.trees[row] for row in portion.rows], shared=shared)
            part = Part(packed.to(self._model.device), portion.rows, rollouts, advantages)
            backward = partial(self._backward, portion)
            totals[:2] += self._losses.critic(part, backward) * portion.share
            if train_policy:
                totals[2:] += self._losses.policy(part, backward) * portion.share
        norm = self.update(POLICY) if train_policy else 0.0
        critic_norm = self.update(CRITIC)
        value, held, policy, clipped, kl, ratio = parallel.all_reduce(totals.tolist())
        return UpdateStats(policy, value, clipped, kl, ratio, held, norm, critic_norm, 1)

    def _backward(self, portion: Portion, loss: Tensor) -> None:
        """Add a portion's gradients; processes average theirs after the last one."""
        strategy, waits = self.trainer.strategy, not portion.last
        held: AbstractContextManager[Any] = nullcontext()
        if waits and parallel.world_size() > 1:
            held = strategy.block_backward_sync()  # type: ignore[attr-defined]
        with held:
            self.manual_backward(loss * (portion.share * parallel.world_size()))

    def update(self, index: int) -> float:
        """Clip the gradients of one optimizer, step it and its schedule; return their norm."""
        optimizers, schedulers = self.optimizers(), self.lr_schedulers()
        assert isinstance(optimizers, list) and isinstance(schedulers, list)
        norm = clip(parameters_of(optimizers[index]), self._adamw[index].max_grad_norm)
        optimizers[index].step()
        optimizers[index].zero_grad()
        schedulers[index].step()  # type: ignore[call-arg]
        return norm

    def configure_optimizers(self) -> Any:
        """Make an optimizer and a schedule for the policy and for the critic."""
        settings = self._settings
        n_updates = settings.iterations * settings.ppo.epochs * settings.ppo.minibatches
        return tuple(
            make_optimizer(self._trained[name], chosen, n_updates, f"lr_{name}", EPSILON)
            for name, chosen in zip(("policy", "critic"), self._adamw, strict=True)
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the controller and the running statistics."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["ppo"] = self._steering()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over what ``on_save_checkpoint`` kept."""
        super().on_load_checkpoint(checkpoint)
        self._steer(checkpoint["ppo"])

    def _steering(self) -> dict[str, Any]:
        return {
            "kl": self.controller.state_dict(),
            "moments": self.score_moments.state_dict(),
            "stopped": self.stopped,
        }

    def _steer(self, state: dict[str, Any]) -> None:
        self.controller.load_state_dict(state["kl"])
        self.score_moments.load_state_dict(state["moments"])
        self.stopped = state["stopped"]
