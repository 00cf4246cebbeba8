"""One clipped update of policy and critic: how a minibatch is cut, and the losses of a part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cai import parallel
from cai.algorithms.masked import masked_mean
from cai.algorithms.ppo import Advantages, policy_loss, value_loss
from cai.config import RLConfig
from cai.lm.load import LanguageModel
from cai.lm.packing import Packed, batches_of, hidden_states
from cai.lm.score import Shaping, response_scores
from cai.training.iteration import Roles, flat
from cai.training.rollouts import Rollouts

Backward = Callable[[Tensor], None]


@dataclass(frozen=True)
class Portion:
    """A part of a minibatch that goes through the networks at once.

    Attributes:
        rows: Of the rollouts.
        share: Of the minibatch's tokens; 0 keeps a process in step that has nothing left to do.
        last: Whether the processes add up their gradients after it.
    """

    rows: list[int]
    share: float
    last: bool


def portions(rows: list[int], rollouts: Rollouts, micro_tokens: int) -> Iterator[Portion]:
    """Cut this process's share of a minibatch; every process gets as many portions."""
    world = parallel.world_size()
    n_tokens = sum(len(rollouts.trees[row].responses[0]) for row in rows)
    cut = []
    for rank in range(world):
        own = rows[rank::world]
        groups = batches_of([rollouts.trees[row] for row in own], micro_tokens)
        cut.append([[own[i] for i in group] for group in groups])
    mine, n = cut[parallel.rank()], max(map(len, cut))
    for number in range(n):
        chosen = mine[number] if number < len(mine) else []
        tokens = sum(len(rollouts.trees[row].responses[0]) for row in chosen)
        yield Portion(chosen or rows[:1], tokens / n_tokens, number == n - 1)


@dataclass(frozen=True)
class Part:
    """What is known of the replies of a portion."""

    packed: Packed
    rows: list[int]
    rollouts: Rollouts
    advantages: Advantages

    def flat(self, grid: Tensor) -> Tensor:
        """Take the tokens of these rows out of a grid [B, T]: [N]."""
        return flat(grid, self.packed, self.rows)


class Losses:
    """The losses of one part of a minibatch, by the networks as they are now."""

    def __init__(
        self, model: LanguageModel, roles: Roles, settings: RLConfig, shaping: Shaping
    ) -> None:
        """Take the networks and what shapes the losses."""
        self._model, self._roles = model, roles
        self._settings, self._shaping = settings, shaping

    def policy(self, part: Part, backward: Backward) -> Tensor:
        """Hand the clipped loss to ``backward``: loss, clipped, KL, ratio, [4]."""
        settings, packed = self._settings, part.packed
        bonus = settings.ppo.entropy_bonus
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
                part.flat(part.rollouts.logp),
                part.flat(part.advantages.advantages),
                everything,
                settings.ppo.clip,
            )
            total = loss.loss
            if now.entropies is not None:
                total = total - bonus * masked_mean(now.entropies, everything)
            backward(total)  # activations may be computed again: same adapter
        numbers = (loss.loss.detach(), loss.clip_fraction, loss.approx_kl, loss.mean_ratio)
        return torch.tensor([float(number) for number in numbers])

    def critic(self, part: Part, backward: Backward) -> Tensor:
        """Hand the clipped error of the values to ``backward``: loss, clipped, [2]."""
        packed = part.packed
        with self._model.use(self._roles.critic) as network:
            hidden = hidden_states(network, packed)
            values = self._roles.critic_head(hidden[packed.row, packed.before])
            loss = value_loss(
                values,
                part.flat(part.rollouts.values),
                part.flat(part.advantages.returns),
                torch.ones_like(values, dtype=torch.bool),
                self._settings.critic.clip,
            )
            backward(loss.loss)
        return torch.tensor([float(loss.loss.detach()), float(loss.clip_fraction)])
