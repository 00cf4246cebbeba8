"""The RL stage's node of the config."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from cai.config.choices import CriticStart, Guard, KLControl, OptimizerKind, Schedule
from cai.config.optimizer import OptimizerConfig
from cai.config.rules import at_least, at_least_all, within


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
class CriticConfig:
    """The value function."""

    start: CriticStart = MISSING
    lr: float = MISSING
    warmup_iterations: int = MISSING
    clip: float | None = MISSING

    def __post_init__(self) -> None:
        """Check ranges."""
        within("rl.critic.lr", self.lr, 0.0, 1.0)
        at_least("rl.critic.warmup_iterations", self.warmup_iterations, 0)


@dataclass
class DPOConfig:
    """Direct preference optimisation, where the recipe asks for it."""

    beta: float = MISSING
    smoothing: float = MISSING
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        """Check ranges."""
        within("rl.dpo.beta", self.beta, 1e-6, 100.0)
        within("rl.dpo.smoothing", self.smoothing, 0.0, 0.499)


@dataclass
class RLConfig:
    """PPO against the preference model."""

    iterations: int = MISSING
    rollouts: int = MISSING
    red_team_share: float = MISSING
    temperature: float = MISSING
    reply_tokens: int = MISSING
    min_reply_tokens: int = MISSING
    epochs: int = MISSING
    minibatches: int = MISSING
    full_finetuning: bool = MISSING
    optimizer: OptimizerKind = MISSING
    lr: float = MISSING
    schedule: Schedule = MISSING
    max_grad_norm: float = MISSING
    clip: float = MISSING
    gamma: float = MISSING
    gae_lambda: float = MISSING
    whiten_advantages: bool = MISSING
    scale_rewards: bool = MISSING
    missing_eos_penalty: float = MISSING
    entropy_bonus: float = MISSING
    stop_kl: float | None = MISSING
    evaluate_every: int = MISSING
    guard: Guard = MISSING
    kl: KLConfig = field(default_factory=KLConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)
    dpo: DPOConfig = field(default_factory=DPOConfig)

    def __post_init__(self) -> None:
        """Check ranges."""
        at_least_all(
            "rl",
            1,
            iterations=self.iterations,
            rollouts=self.rollouts,
            reply_tokens=self.reply_tokens,
            epochs=self.epochs,
            minibatches=self.minibatches,
            evaluate_every=self.evaluate_every,
        )
        at_least_all(
            "rl",
            0,
            min_reply_tokens=self.min_reply_tokens,
            missing_eos_penalty=self.missing_eos_penalty,
            entropy_bonus=self.entropy_bonus,
        )
        within("rl.red_team_share", self.red_team_share, 0.0, 1.0)
        within("rl.temperature", self.temperature, 0.01, 5.0)
        within("rl.gamma", self.gamma, 0.0, 1.0)
        within("rl.gae_lambda", self.gae_lambda, 0.0, 1.0)
        within("rl.clip", self.clip, 0.0, 10.0)
        within("rl.lr", self.lr, 0.0, 1.0)
