"""Where a run departs from Bai et al. 2022, in sentences for its report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Settings = Mapping[str, Any]
"""Flat, with dotted keys."""


def _labels_by(settings: Settings) -> object:
    asked = settings.get("feedback.cot") or settings.get("feedback.endpoint.url")
    return "choice" if asked else settings.get("feedback.method")


_CHOICES: list[tuple[Callable[[Settings], bool], str]] = [
    (
        lambda s: s.get("sft.start") == "helpful",
        "SL-CAI starts from the helpful assistant; the paper's from a pre-trained model.",
    ),
    (
        lambda s: bool(s.get("helpful.fine_tune")),
        "The helpful assistant is tuned by supervised learning on answers and demonstrations, not "
        "by RLHF.",
    ),
    (
        lambda s: s.get("feedback.model") == "helpful" and not s.get("feedback.cot"),
        "The feedback model is the helpful assistant; the paper's a pre-trained model.",
    ),
    (
        lambda s: _labels_by(s) == "probe",
        "AI labels are read off hidden states by a direction that is fitted to comparisons with a "
        "known answer; the paper's model is asked.",
    ),
    (
        lambda s: _labels_by(s) == "contrast",
        "AI labels compare likelihoods under a principle and its opposite; the paper's model is "
        "asked.",
    ),
    (
        lambda s: bool(s.get("feedback.label.calibrate")),
        "AI labels are calibrated by a temperature that is fitted on held-out comparisons.",
    ),
    (
        lambda s: s.get("revise.few_shots") == 0,
        "Critiques and revisions are asked for without few-shots.",
    ),
    (
        lambda s: s.get("model.temperature", 1.0) != 1.0,
        "Replies are sampled at temperature {model.temperature}, not 1; PPO's policy is the "
        "distribution at that temperature.",
    ),
    (
        lambda s: s.get("rl.kl.coefficient", 0.001) != 0.001,
        "The KL coefficient is {rl.kl.coefficient}, not 0.001.",
    ),
    (
        lambda s: abs(s.get("rl.rollout.red_team_share", 0.5) - 0.5) > 0.05,
        "Of the prompts of RL a share of {rl.rollout.red_team_share} are red-team ones; of the "
        "paper's 0.53.",
    ),
    (
        lambda s: bool(s.get("rl.reward.missing_eos_penalty")),
        "Replies that are cut off are paid {rl.reward.missing_eos_penalty} less.",
    ),
    (
        lambda s: bool(s.get("rl.reward.repetition_penalty")),
        "Replies that repeat themselves are paid {rl.reward.repetition_penalty} less.",
    ),
]
"""When a choice departs, and what to say of it; keys in braces stand for their values."""


def departures(settings: Settings) -> list[str]:
    """List what differs from the paper under these settings."""
    names = {"sft": "SL-CAI", "pm": "the preference model", "rl": "the policy"}
    full = [name for key, name in names.items() if settings.get(f"{key}.full_finetuning")]
    whole = f", but for {' and '.join(full)}" if full else ""
    always = [
        f"Adapters (LoRA) on one frozen base are trained instead of whole models{whole}.",
        f"The base is {settings.get('model.name')}, not a 52B pre-trained model.",
        f"Sizes are those of scale: {settings.get('revise.prompts', 0)} red-team prompts are "
        "revised, against 182,831.",
        "Elo comes from comparisons by a held-out preference model and by the feedback model, not "
        "from crowdworkers.",
        "Absolute learning rates are our own: the paper gives them relative to unpublished ones.",
    ]
    return always + [_filled(words, settings) for departs, words in _CHOICES if departs(settings)]


def _filled(words: str, settings: Settings) -> str:
    for key, value in settings.items():
        words = words.replace("{" + key + "}", str(value))
    return words
