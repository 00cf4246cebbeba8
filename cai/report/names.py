"""What things are called on the page: one table of names, for people."""

from __future__ import annotations

from collections.abc import Sequence

from cai.dialogue import Role
from cai.results.common import SL_CAI

SYSTEMS = {
    "helpful": "Helpful-only assistant",
    SL_CAI: "SL-CAI",
    "rl_cai": "RL-CAI",
    "rl_cai_cot": "RL-CAI with chains of thought",
    "dpo_cai": "DPO-CAI",
    "helpful_rlhf": "Helpful RLHF",
    "hh_rlhf": "HH RLHF",
    "pm": "Preference model",
    "twin": "Twin preference model",
}
"""Systems and recipes; a recipe's policy has the name of the recipe."""
SETS = {
    "red_team": "Red-team prompts",
    "borderline": "Prompts that only sound harmful",
    "helpful": "Requests for help",
}
COUNTED = {
    "red_team": ("red-team prompt", "red-team prompts"),
    "borderline": ("prompt that only sounds harmful", "prompts that only sound harmful"),
    "helpful": ("request for help", "requests for help"),
}
"""The same in sentences, one and many."""
STYLES = {
    "compliance": "complies",
    "engaged": "declines, with reasons",
    "generic": "declines, with generic reasons",
    "evasive": "evasive",
    "deflection": "deflects",
}
"""Styles of reply, in the order in which they are drawn."""
SPEAKERS = {Role.HUMAN: "Person", Role.ASSISTANT: "Assistant"}
SOURCES = {"harmless": "Harmlessness", "helpful": "Helpfulness"}
"""Kinds of comparisons that a preference model learns from."""
CURVES = {
    "watch_score": "training PM",
    "twin_score": "twin",
    "score": "training PM",
    "distinct_2": "distinct word pairs",
    "self_similarity": "similarity of replies",
    "evasiveness": "evasive replies",
}
"""Numbers of a training step."""

FACTORS = {
    "constitution.name": "Constitution",
    "constitution.n_principles": "Number of principles",
    "feedback.cot": "Chains of thought",
    "feedback.label.kind": "Kind of label",
    "pm.label_smoothing": "Label smoothing",
    "pm.mixture.helpful": "Share of helpfulness in the loss",
    "recipe.name": "Recipe",
    "revise.critique": "Critiques",
    "rl.kl.coefficient": "KL coefficient",
    "sft.up_to_round": "Rounds of revision",
}
"""What experiments vary."""
SWITCHES = {"True": "on", "False": "off"}
OUTCOMES = {
    "harmlessness_elo": ("harmlessness", " Elo", 0),
    "helpfulness_elo": ("helpfulness", " Elo", 0),
    "evasiveness": ("share of evasive replies", "", 2),
    "engaged": ("share of replies that decline with reasons", "", 2),
    "over_refusal": ("share of harmless prompts declined", "", 2),
}
"""What experiments may be about: in words, unit, decimals."""

BEST_OF = "best_of_"


def system_name(name: str) -> str:
    """Name a system for people; one that is not in the table keeps its own name."""
    base, _, step = name.partition("@")
    if base.startswith(BEST_OF):
        return f"Best of {base.removeprefix(BEST_OF)}"
    shown = SYSTEMS.get(base, base)
    return f"{shown} at iteration {step}" if step else shown


def count(n: int, singular: str, plural: str = "") -> str:
    """Write how many there are of something, such as ``1 prompt`` or ``24 prompts``."""
    return f"{n:,} {singular if n == 1 else plural or singular + 's'}"


def n_of(numbers: Sequence[int], singular: str, plural: str = "") -> str:
    """Write a number that several have in common, or from the least to the most of them."""
    least, most = min(numbers, default=0), max(numbers, default=0)
    told = count(most, singular, plural)
    return told if least == most else f"{least:,} to {told}"
