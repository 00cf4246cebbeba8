"""The RL stage's node of the config."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from cai.config.bounds import count, number
from cai.config.choices import CriticStart, Guard, KLControl
from cai.config.optimizer import OptimizerConfig, SupervisedConfig
from cai.errors import UserError


@dataclass
class RolloutConfig:
    """What an iteration samples."""

    prompts: int = count()
    red_team_share: float = number(0, 1)
    temperature: float = number(0.01, 5)
    reply_tokens: int = count()
    min_reply_tokens: int = count(0)

    def __post_init__(self) -> None:
        """Check that a reply may end."""
        known = isinstance(self.min_reply_tokens, int) and isinstance(self.reply_tokens, int)
        if known and self.min_reply_tokens > self.reply_tokens:
            raise UserError(
                f"rl.rollout.min_reply_tokens={self.min_reply_tokens} is above "
                f"rl.rollout.reply_tokens={self.reply_tokens}, so no reply could end: lower it"
            )


@dataclass
class RewardConfig:
    """What becomes of the PM's score before the KL penalty."""

    scale: bool = MISSING
    missing_eos_penalty: float = number(0, 1e6)
    repetition_penalty: float = number(0, 1e6)


@dataclass
class KLConfig:
    """The penalty that keeps the policy near its reference."""

    control: KLControl = MISSING
    coefficient: float = number(0, 1e6)
    target: float = number(0, 1e6, above=True)
    horizon: int = count()


@dataclass
class AdvantageConfig:
    """Generalised advantage estimation."""

    gamma: float = number(0, 1)
    gae_lambda: float = number(0, 1)
    whiten: bool = MISSING


@dataclass
class PPOConfig:
    """How an iteration's rollouts are learnt from."""

    epochs: int = count(1, 1000)
    minibatches: int = count()
    clip: float = number(0, 10)
    entropy_bonus: float = number(0, 1000)
    stop_kl: float | None = number(0, 1e6)


@dataclass
class CriticConfig:
    """The value function."""

    start: CriticStart = MISSING
    warmup_iterations: int = count(0)
    clip: float | None = number(0, 1e6, above=True)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)


@dataclass
class WatchConfig:
    """The twin's looks at the policy."""

    evaluate_every: int = count()
    guard: Guard = MISSING


@dataclass
class DPOConfig(SupervisedConfig):
    """Direct preference optimisation, where the recipe asks for it."""

    beta: float = number(1e-6, 100)
    smoothing: float = number(0, 0.499)


@dataclass
class RLConfig:
    """PPO against the preference model, or DPO on its comparisons."""

    iterations: int = count()
    full_finetuning: bool = MISSING
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    kl: KLConfig = field(default_factory=KLConfig)
    advantage: AdvantageConfig = field(default_factory=AdvantageConfig)
    ppo: PPOConfig = field(default_factory=PPOConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)
    watch: WatchConfig = field(default_factory=WatchConfig)
    dpo: DPOConfig = field(default_factory=DPOConfig)
