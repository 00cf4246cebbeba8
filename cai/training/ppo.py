"""PPO against a preference model; one training step is one iteration."""

from __future__ import annotations

import copy
import logging
import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from cai import parallel
from cai.algorithms.masked import RunningMoments, masked_mean, moments, whiten
from cai.algorithms.ppo import (
    Advantages,
    gae,
    kl_estimates,
    penalise_missing_eos,
    policy_loss,
    token_rewards,
    value_loss,
)
from cai.config import RLConfig
from cai.errors import UserError
from cai.lm.generate import Sampling, generate
from cai.lm.load import LanguageModel
from cai.lm.packing import Packed, Tree, batches_of, hidden_states, pack
from cai.lm.score import Shaping, response_scores
from cai.seeds import seed_of
from cai.training.iteration import (
    Roles,
    UpdateStats,
    average,
    draw_prompts,
    flat,
    kl_controller,
    read_rollouts,
    summarise,
)
from cai.training.rollouts import Rollouts, merge
from cai.training.trainer import Record, ResumableModule, rate

log = logging.getLogger(__name__)

POLICY, CRITIC = 0, 1
"""Places of the two optimizers."""

Score = Callable[[Sequence[Tree]], Tensor]
"""Maps replies to scores [B]; the preference model, unless a programmed one takes its place."""

Watch = Callable[["PPOModule", int], bool]
"""Looks at the policy every ``rl.evaluate_every`` iterations; True ends the training."""


class PPOModule(ResumableModule):
    """Proximal policy optimisation of one adapter, with the others frozen beside it."""

    def __init__(
        self,
        model: LanguageModel,
        roles: Roles,
        prompts: tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]],
        settings: RLConfig,
        plan: tuple[int, int],
        record: Record,
    ) -> None:
        """Set up controllers and statistics.

        Args:
            model: Holds all adapters.
            roles: Their names.
            prompts: Red-team and helpful prompts as token ids.
            settings: Of the stage.
            plan: Tokens of a micro-batch, and the seed.
            record: Takes the numbers of each iteration.

        Raises:
            UserError: If there are fewer replies than processes.
        """
        if settings.rollouts < parallel.world():
            raise UserError(
                f"rl.rollouts={settings.rollouts} is too few for {parallel.world()} processes: "
                "start fewer, or raise it"
            )
        adapters = model.train_only(roles.policy, roles.critic)
        half = len(adapters) // 2
        critic = [*adapters[half:], *roles.critic_head.parameters()]
        super().__init__({"policy": adapters[:half], "critic": critic}, record)
        self._model, self._roles, self._prompts = model, roles, prompts
        self._settings, self._plan = settings, plan
        self.score: Score = lambda trees: roles.reward.score(trees, plan[0])
        self._shaping = Shaping(model.stop_ids, settings.min_reply_tokens, settings.temperature)
        self.controller = kl_controller(settings.kl)
        self.score_moments = RunningMoments()
        self.n_steps = settings.iterations
        self.watch: Watch | None = None
        self.stopped = False

    def training_step(self, step: int) -> None:
        """Make one iteration; one that goes wrong is taken back and tried once more.

        Raises:
            UserError: If it goes wrong again.
        """
        if self.stopped:
            return
        before = copy.deepcopy(self.training_state())
        for attempt in range(2):
            summary = self.iterate(step, attempt)
            if all(map(math.isfinite, summary.values())):
                break
            log.warning("rl: iteration %d gave numbers that are not finite; taken back", step)
            self.load_training_state(before)
        else:
            raise UserError(
                f"rl diverged at iteration {step} twice: lower rl.lr or rl.critic.lr; the last "
                "good checkpoint is kept, and another rate starts afresh"
            )
        self.report(summary, step)
        if self.watch is not None and (step + 1) % self._settings.evaluate_every == 0:
            self.stopped = parallel.tell(self.watch(self, step))

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
        seeds = [seed_of(self._plan[1], "rollout", step, attempt, i) for i in range(len(prompts))]
        own = self._roll_out(parallel.share(prompts), parallel.share(seeds))
        return merge(parallel.gather(own))

    def _roll_out(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int]) -> Rollouts:
        settings, model = self._settings, self._model
        sampling = Sampling(settings.reply_tokens, settings.min_reply_tokens, settings.temperature)
        with model.sampling(self._roles.policy) as network:
            replies = generate(
                network, prompts, seeds, sampling, model.stop_ids, batch_size=len(prompts)
            )
        trees = [Tree(p, [reply.tokens]) for p, reply in zip(prompts, replies, strict=True)]
        how = (self._plan[0], self._shaping)
        found = read_rollouts(model, self._roles, trees, replies, self.score(trees), how)
        penalty = settings.missing_eos_penalty
        return found._replace(scores=penalise_missing_eos(found.scores, found.ended, penalty))

    def prompts_of(self, step: int) -> list[Sequence[int]]:
        """Return the prompts of an iteration: a fixed share of each kind, in seeded order."""
        n_red = round(self._settings.rollouts * self._settings.red_team_share)
        numbers = (n_red, self._settings.rollouts - n_red)
        return draw_prompts(self._prompts, numbers, self._plan[1], step)

    def rewards(self, rollouts: Rollouts) -> Tensor:
        """Combine scores, scaled if asked for, with the KL penalty: [B, T]."""
        scores = rollouts.scores
        if self._settings.scale_rewards:
            self.score_moments.update(moments(scores, torch.ones_like(scores, dtype=torch.bool)))
            scores = scores / self.score_moments.std
        return token_rewards(
            scores, rollouts.logp, rollouts.ref_logp, rollouts.mask, self.controller.coefficient
        )

    def advantages(self, rollouts: Rollouts, rewards: Tensor) -> Advantages:
        """Estimate advantages over the whole batch, whitened if asked for."""
        settings = self._settings
        estimate = gae(rewards, rollouts.values, rollouts.mask, settings.gamma, settings.gae_lambda)
        if not settings.whiten_advantages:
            return estimate
        return estimate._replace(advantages=whiten(estimate.advantages, rollouts.mask))

    def improve(self, step: int, rollouts: Rollouts, advantages: Advantages) -> UpdateStats:
        """Update both networks for several epochs; stop when the policy has moved too far."""
        settings = self._settings
        train_policy = step >= settings.critic.warmup_iterations
        done: list[UpdateStats] = []
        for epoch in range(settings.epochs):
            order = list(range(len(rollouts.trees)))
            random.Random(seed_of(self._plan[1], "minibatches", step, epoch)).shuffle(order)
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
        n_tokens = sum(len(rollouts.trees[row].responses[0]) for row in rows)
        own = parallel.share(rows)
        trees = [rollouts.trees[row] for row in own]
        totals = torch.zeros(6)
        for group in batches_of(trees, self._plan[0]):
            packed = pack([trees[i] for i in group]).to(self._model.device)
            chosen = [own[i] for i in group]
            share = len(packed.targets) / n_tokens
            stats = self._critic_backward(packed, chosen, rollouts, advantages, share)
            if train_policy:
                stats = stats + self._policy_backward(packed, chosen, rollouts, advantages, share)
            totals += stats * share
        norm = self.update(POLICY, self._settings.max_grad_norm) if train_policy else 0.0
        critic_norm = self.update(CRITIC, self._settings.max_grad_norm)
        value, held, policy, clipped, kl, ratio = parallel.total(totals.tolist())
        return UpdateStats(policy, value, clipped, kl, ratio, held, norm, critic_norm, 1)

    def _policy_backward(
        self,
        packed: Packed,
        rows: list[int],
        rollouts: Rollouts,
        advantages: Advantages,
        share: float,
    ) -> Tensor:
        settings = self._settings
        bonus = settings.entropy_bonus
        with self._model.use(self._roles.policy) as network:
            hidden = hidden_states(network, packed)
            now = response_scores(
                network,
                hidden,
                packed,
                shaping=self._shaping,
                with_entropy=bonus > 0,
                entropy_gradient=bonus > 0,
            )
        everything = torch.ones_like(now.logprobs, dtype=torch.bool)
        loss = policy_loss(
            now.logprobs,
            flat(rollouts.logp, packed, rows),
            flat(advantages.advantages, packed, rows),
            everything,
            settings.clip,
        )
        total = loss.loss
        if now.entropies is not None:
            total = total - bonus * masked_mean(now.entropies, everything)
        self.manual_backward(total * share)
        numbers = (loss.loss.detach(), loss.clip_fraction, loss.approx_kl, loss.mean_ratio)
        return torch.tensor([0.0, 0.0, *(float(number) for number in numbers)])

    def _critic_backward(
        self,
        packed: Packed,
        rows: list[int],
        rollouts: Rollouts,
        advantages: Advantages,
        share: float,
    ) -> Tensor:
        with self._model.use(self._roles.critic) as network:
            hidden = hidden_states(network, packed)
            values = self._roles.critic_head(hidden[packed.row, packed.before])
        loss = value_loss(
            values,
            flat(rollouts.values, packed, rows),
            flat(advantages.returns, packed, rows),
            torch.ones_like(values, dtype=torch.bool),
            self._settings.critic.clip,
        )
        self.manual_backward(loss.loss * share)
        return torch.tensor([float(loss.loss.detach()), float(loss.clip_fraction), 0, 0, 0, 0])

    def configure_optimizers(self) -> Any:
        """Make an optimizer and a schedule for the policy and for the critic."""
        settings = self._settings
        n_updates = settings.iterations * settings.epochs * settings.minibatches
        rates = {"policy": settings.lr, "critic": settings.critic.lr}
        optimizers = [
            AdamW(self._trained[name], lr=lr, betas=(0.9, 0.95), eps=1e-6, weight_decay=0.0)
            for name, lr in rates.items()
        ]
        factor = rate(settings.schedule, 0.0, n_updates)
        return optimizers, [LambdaLR(optimizer, factor) for optimizer in optimizers]

    def training_state(self) -> dict[str, Any]:
        """Add the controller and the running statistics to the state."""
        return {
            **super().training_state(),
            "kl": self.controller.state_dict(),
            "moments": self.score_moments.state_dict(),
            "stopped": self.stopped,
        }

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Take over what ``training_state`` returned."""
        super().load_training_state(state)
        self.controller.load_state_dict(state["kl"])
        self.score_moments.load_state_dict(state["moments"])
        self.stopped = state["stopped"]
