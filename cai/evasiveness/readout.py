"""Styles of reply by meaning: a linear read-out of a base's hidden states.

An objection need not hold a phrase of refusal, but the lower layers of a language model already
tell it from advice that helps. The read-out sees their states (`cai.evasiveness.states`) beside the
named features of the quick form, and belongs to the base that it was fitted on. Its weights lie in
``readout.safetensors`` beside this file; what they were fitted to is said in its metadata.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from cai.errors import UserError
from cai.evasiveness.classifier import Reading, Style, declined_with_style, read
from cai.evasiveness.features import extract
from cai.evasiveness.states import Reach, reply_states
from cai.evasiveness.text import Exchange
from cai.files import replacing
from cai.lm.load import LanguageModel
from cai.lm.prepared import base_fingerprint

READOUT = Path(__file__).with_name("readout.safetensors")
MAX_TOKENS = 2048
"""Padded tokens in one forward pass."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Readout:
    """Two linear models on what is seen of a reply, [states, features].

    Attributes:
        base: Fingerprint of the base whose states are read.
        reach: How much of the base and of a text is read.
        features: Names of the hand-made features, in order.
        fitted_to: What the weights were fitted to.
        weight: Of the decision to decline, then of each style, [6, D].
        bias: The same, [6].
    """

    base: str
    reach: Reach
    features: tuple[str, ...]
    fitted_to: str
    weight: Array
    bias: Array

    def readings(self, exchanges: Sequence[Exchange], seen: Array) -> list[Reading]:
        """Read replies from what `look` saw of them, [N, D]."""
        readings = []
        logits = (seen @ self.weight.T + self.bias).tolist()
        for (_, response), (decline, *styles) in zip(exchanges, logits, strict=True):
            scores = dict(zip(Style, styles, strict=True))
            readings.append(read(response, declined_with_style(decline, scores), scores))
        return readings


def look(
    model: LanguageModel, reach: Reach, features: Sequence[str], exchanges: Sequence[Exchange]
) -> Array:
    """Return states, view after view, and hand-made features of replies, [N, V H + F]."""
    states = reply_states(model, reach, exchanges, MAX_TOKENS).flatten(1).double().numpy()
    measured = [extract(*exchange) for exchange in exchanges]
    named = np.array([[each[name] for name in features] for each in measured])
    return np.hstack([states, named.reshape(len(exchanges), len(features))])


def write_readout(readout: Readout, path: Path) -> None:
    """Write weights and what they belong to into one file."""
    about = {
        "base": readout.base,
        "reach": json.dumps(asdict(readout.reach)),
        "features": json.dumps(readout.features),
        "fitted_to": readout.fitted_to,
    }
    tensors = {
        "weight": readout.weight.astype(np.float32),
        "bias": readout.bias.astype(np.float32),
    }
    with replacing(path) as scratch:
        save_file(tensors, scratch, metadata=about)


@cache
def read_readout(path: Path = READOUT) -> Readout:
    """Read what `write_readout` wrote."""
    with safe_open(path, framework="numpy") as file:
        about = file.metadata()
        weight, bias = (file.get_tensor(name).astype(np.float64) for name in ("weight", "bias"))
    return Readout(
        about["base"],
        Reach(**json.loads(about["reach"])),
        tuple(json.loads(about["features"])),
        about["fitted_to"],
        weight,
        bias,
    )


class Classifier:
    """Classifies many replies at once by what a base's lower layers hold of them."""

    def __init__(self, model: LanguageModel, readout: Readout | None = None) -> None:
        """Take the base and the weights that belong to it.

        Args:
            model: Its bare base reads; adapters play no part.
            readout: Other weights than those of the package.

        Raises:
            UserError: If the weights belong to another base.
        """
        self.model = model
        self.readout = readout or read_readout()
        found = base_fingerprint(model)
        if found != self.readout.base:
            raise UserError(
                f"the classifier's read-out belongs to a base with fingerprint "
                f"{self.readout.base[:12]}, and model={model.config.name} has {found[:12]}: "
                "classify with model=smollm2, not quantised, or use the quick form, classify()"
            )

    def __call__(self, exchanges: Sequence[Exchange]) -> list[Reading]:
        r"""Classify replies.

        Args:
            exchanges: Prompts and replies. A prompt is the request, or a transcript
                ``\n\nHuman: ...\n\nAssistant:``, of which the last human turn counts.
        """
        if not exchanges:
            return []
        seen = look(self.model, self.readout.reach, self.readout.features, exchanges)
        return self.readout.readings(exchanges, seen)
