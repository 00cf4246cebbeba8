"""The RL stage's node of the config."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from omegaconf import MISSING

from cai.config.choices import CriticStart, Guard, KLControl
from cai.config.optimizer import OptimizerConfig, SupervisedConfig
from cai.config.rules import at_least, at_least_all, within


@dataclass
class RolloutConfig:
    """What an iteration samples."""

    prompts: int = MISSING
    red_team_share: float = MISSING
    temperature: float = MISSING
    reply_tokens: int = MISSING
    min_reply_tokens: int = MISSING

    def __post_init__(self) -> None:
        """Check ranges."""
        at_least_all("rl.rollout", 1, prompts=self.prompts, reply_tokens=self.reply_tokens)
        at_least("rl.rollout.min_reply_tokens", self.min_reply_tokens, 0)
        within("rl.rollout.red_team_share", self.red_team_share, 0.0, 1.0)
        within("rl.rollout.temperature", self.temperature, 0.01, 5.0)


@dataclass
class RewardConfig:
    """What becomes of the PM's score before the KL penalty."""

    scale: bool = MISSING
    missing_eos_penalty: float = MISSING

    def __post_init__(self) -> None:
        """Check ranges."""
        at_least("rl.reward.missing_eos_penalty", self.missing_eos_penalty, 0)


@dataclass
class KLConfig:
    """The penalty that keeps the policy near its reference."""

    control: KLControl = MISSING
    coefficient: float = MISSING
    target: float = MISSING
    horizon: int = MISSING

    def __post_init__(self) -> None:
        """Check ranges."""
        at_least_all("rl.kl", 0, coefficient=self.coefficient, target=self.target)
        at_least("rl.kl.horizon", self.horizon, 1)


@dataclass
class AdvantageConfig:
    """Generalised advantage estimation."""

    gamma: float = MISSING
    gae_lambda: float = MISSING
    whiten: bool = MISSING

    def __post_init__(self) -> None:
        """Check ranges."""
        within("rl.advantage.gamma", self.gamma, 0.0, 1.0)
        within("rl.advantage.gae_lambda", self.gae_lambda, 0.0, 1.0)


@dataclass
class PPOConfig:
    """How an iteration's rollouts are learnt from."""

    epochs: int = MISSING
    minibatches: int = MISSING
    clip: float = MISSING
    entropy_bonus: float = MISSING
    stop_kl: float | None = MISSING

    def __post_init__(self) -> None:
        """Check ranges."""
        at_least_all("rl.ppo", 1, epochs=self.epochs, minibatches=self.minibatches)
        at_least("rl.ppo.entropy_bonus", self.entropy_bonus, 0)
        within("rl.ppo.clip", self.clip, 0.0, 10.0)


@dataclass
class CriticConfig:
    """The value function."""

    start: CriticStart = MISSING
    warmup_iterations: int = MISSING
    clip: float | None = MISSING
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        """Check ranges."""
        self.optimizer.check("rl.critic")
        at_least("rl.critic.warmup_iterations", self.warmup_iterations, 0)


@dataclass
class WatchConfig:
    """The twin's looks at the policy."""

    evaluate_every: int = MISSING
    guard: Guard = MISSING

    def __post_init__(self) -> None:
        """Check ranges."""
        at_least("rl.watch.evaluate_every", self.evaluate_every, 1)


@dataclass
class DPOConfig(SupervisedConfig):
    """Direct preference optimisation, where the recipe asks for it."""

    node: ClassVar[str] = "rl.dpo"

    beta: float = MISSING
    smoothing: float = MISSING

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        within("rl.dpo.beta", self.beta, 1e-6, 100.0)
        within("rl.dpo.smoothing", self.smoothing, 0.0, 0.499)


@dataclass
class RLConfig:
    """PPO against the preference model, or DPO on its comparisons."""

    iterations: int = MISSING
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

    def __post_init__(self) -> None:
        """Check ranges."""
        self.optimizer.check("rl")
        at_least("rl.iterations", self.iterations, 1)
