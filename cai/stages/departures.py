"""Where a run departs from Bai et al. 2022, in sentences for its report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def departures(settings: Mapping[str, Any]) -> list[str]:
    """List what differs from the paper under these settings (flat, with dotted keys)."""
    whole = ", but for the preference model" if settings.get("pm.full_finetuning") else ""
    said = [
        f"Adapters (LoRA) on one frozen base are trained instead of whole models{whole}.",
        f"The base is {settings.get('model.name')}, not a 52B pre-trained model.",
        f"Sizes are those of scale: {settings.get('revise.prompts', 0)} red-team prompts are "
        "revised, against 182,831.",
        "Elo comes from comparisons by a held-out preference model and by the feedback model, not "
        "from crowdworkers.",
        "Absolute learning rates are our own: the paper gives them relative to unpublished ones.",
    ]
    if settings.get("sft.start") == "helpful":
        said.append(
            "SL-CAI starts from the helpful assistant; the paper's from a pre-trained model."
        )
    if settings.get("helpful.fine_tune"):
        said.append(
            "The helpful assistant is tuned by supervised learning on answers and demonstrations, "
            "not by RLHF."
        )
    if settings.get("feedback.model") == "helpful" and not settings.get("feedback.cot"):
        said.append("The feedback model is the helpful assistant; the paper's a pre-trained model.")
    if settings.get("feedback.calibrate"):
        said.append(
            "AI labels are calibrated by a temperature that is fitted on held-out comparisons."
        )
    if settings.get("revise.few_shots") == 0:
        said.append("Critiques and revisions are asked for without few-shots.")
    if settings.get("model.temperature", 1.0) != 1.0:
        said.append(
            f"Replies are sampled at temperature {settings.get('model.temperature')}, not 1; PPO's "
            "policy is the distribution at that temperature."
        )
    if settings.get("rl.kl.coefficient", 0.001) != 0.001:
        said.append(f"The KL coefficient is {settings.get('rl.kl.coefficient')}, not 0.001.")
    return said
