"""Model cards: what a saved model is, how it was made and how to load it."""

from __future__ import annotations

from typing import Any

from cai.config import Config


def preference_model_card(config: Config, metrics: dict[str, Any]) -> str:
    """Write the card of a preference model."""
    assert config.pm is not None
    rows = [
        f"| {s['name']} | {s['n']} | {s['loss']:.3f} | {s['accuracy']:.3f} | {s['ece']:.3f} |"
        for s in metrics["sources"]
    ]
    table = "\n".join(
        ["| held-out | pairs | loss | accuracy | ECE |", "|---|---|---|---|---|", *rows]
    )
    return f"""---
library_name: peft
pipeline_tag: text-classification
---
# Preference model on {config.model.name}

A LoRA adapter and a scalar head that score the assistant's last reply, read at the stop token.
Trained on {metrics["trained_on"]} comparisons (recipe `{config.recipe.name}`, label smoothing
{config.pm.label_smoothing}, learning rate {config.pm.optimizer.lr}, seed {config.seed}).

{table}

Scores have no absolute level: subtract the held-out mean {metrics["mean"]:.4f} before comparing
models. A difference d means that the better reply wins with probability sigmoid(d).

```python
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

base = AutoModelForSequenceClassification.from_pretrained(BASE, num_labels=1)
model = PeftModel.from_pretrained(base, THIS_FOLDER)
```

The licence of the base model and of the data applies.
"""
