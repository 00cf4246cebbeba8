"""Model cards: what a saved model is, how it was made and how to load it."""

from __future__ import annotations

from pathlib import Path

from cai.config import DataConfig, DataSource, ModelConfig, ModelSource
from cai.contracts.preferences import PMStageSettings
from cai.results.labels import PMMetrics

OWN = "its own licence"


def preference_model_card(
    config: PMStageSettings, metrics: PMMetrics, code: str, merged: bool = False
) -> str:
    """Write the card of a preference model.

    Args:
        config: What it was made with.
        metrics: What it knows.
        code: Loads it and scores a reply.
        merged: Whether an adapter has been folded into the base.
    """
    whole = config.pm.full_finetuning
    adapter = "A LoRA adapter, folded into the base," if merged else "A LoRA adapter"
    weights = "All weights" if whole else adapter
    rows = [
        f"| {s.name} | {s.n} | {s.loss:.3f} | {s.accuracy:.3f} | {s.ece:.3f} |"
        for s in metrics.sources
    ]
    table = "\n".join(
        ["| held-out | pairs | loss | accuracy | ECE |", "|---|---|---|---|---|", *rows]
    )
    return f"""---
library_name: {"transformers" if whole or merged else "peft"}
pipeline_tag: text-classification
license: other
---
# Preference model on {base_name(config.base)}

{weights} and a scalar head that score the assistant's last
reply, read at the stop token.

## Data

{_data(config, metrics)}

## Settings

{_settings(config)}

## Metrics

{table}

Scores have no absolute level: subtract the held-out mean {metrics.mean:.4f} before comparing
models. A difference d means that the better reply wins with probability sigmoid(d). Held-out
scores spread by {metrics.std:.4f} (standard deviation); their correlation with the length of
the reply is {_correlation(metrics.length_correlation)}.

## Use

```python
{code}
```

## Licence

{_licence(config)}
"""


def _data(config: PMStageSettings, metrics: PMMetrics) -> str:
    """Say what was learnt from; a folder or file is not named, for its path is private."""
    trained, labels = metrics.trained_on, config.recipe.labels.value
    where = " in a local folder" if config.data.folder else ""
    lines = [
        f"- Recipe `{config.recipe.name}`, prompts and human labels from "
        f"`{config.data.source.value}`{where}.",
        f"- {trained['harmless']} comparisons of harmlessness ({labels} labels), weight "
        f"{config.pm.mixture.harmless:g}.",
        f"- {trained['helpful']} comparisons of helpfulness (human labels), weight "
        f"{config.pm.mixture.helpful:g}.",
    ]
    if metrics.pretrained_on:
        lines.append(f"- Before that, {metrics.pretrained_on} comparisons of a local file.")
    return "\n".join(lines)


def _settings(config: PMStageSettings) -> str:
    """List the settings that training read."""
    pm, optimizer = config.pm, config.pm.optimizer
    values = {
        "label smoothing": pm.label_smoothing,
        "centring": pm.centring,
        "learning rate": f"{optimizer.lr:g}, {optimizer.schedule.value}",
        "warm-up": optimizer.warmup,
        "weight decay": optimizer.weight_decay,
        "comparisons per update": pm.batch_size,
        "epochs": pm.epochs,
        **_weights(config),
        "seed": config.seed,
    }
    return "\n".join(f"- {name}: {value}" for name, value in values.items())


def _weights(config: PMStageSettings) -> dict[str, str]:
    if config.pm.full_finetuning:
        return {"trained": "all weights", "precision": "fp32"}
    return {
        "LoRA": f"rank {config.base.lora.rank}, alpha {config.base.lora.alpha}",
        "precision of the base": config.base.dtype.value,
        "quantisation of the base": config.base.quantization.value,
    }


def _correlation(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"


def _licence(config: PMStageSettings) -> str:
    """Say whose terms apply, and name those that are known."""
    terms = [
        f"- base model: {base_licence(config.base)}",
        f"- data: {data_licence(config.data)}",
    ]
    if config.pm.pretrain:
        terms.append(f"- comparisons of pre-training: {OWN}")
    return "The licences of all that it was made from apply.\n\n" + "\n".join(terms)


def base_licence(base: ModelConfig) -> str:
    """Name the licence of a base model as far as it is known."""
    known = {ModelSource.embedded: "Apache-2.0", ModelSource.tiny: "Apache-2.0"}
    return known.get(base.source, OWN)


def data_licence(data: DataConfig) -> str:
    """Name the licence of prompts and human labels as far as it is known."""
    known = {DataSource.builtin: "Apache-2.0", DataSource.hh_rlhf: "MIT", DataSource.files: OWN}
    return OWN if data.folder else known.get(data.source, OWN)


def base_name(base: ModelConfig) -> str:
    """Name a base model; of a path on this machine only the last part."""
    return Path(base.name).name if Path(base.name).is_absolute() else base.name
