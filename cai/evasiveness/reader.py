"""The classifier of replies in the form that a run asks for."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from cai.config import (
    AdapterConfig,
    Dtype,
    ModelSource,
    Quantization,
    ReplyClassifier,
    Strategy,
)
from cai.evasiveness.classifier import Read, by_rules
from cai.evasiveness.readout import Classifier
from cai.lm.embedded import embedded_model
from cai.lm.load import LanguageModel, load_copy


def reader(form: ReplyClassifier, model: LanguageModel) -> Read:
    """Return the classifier of a run.

    The base that the weights belong to reads the replies itself. Beside any other one a copy of
    that base is loaded at the first reply and goes with the reader.

    Args:
        form: By hidden states or by rules.
        model: What the run has loaded; its adapters play no part.

    Raises:
        UserError: If the base that reads can't be had.
    """
    if form is ReplyClassifier.rules:
        return by_rules
    config = model.config
    if (
        config.source is ModelSource.embedded
        and config.quantization is Quantization.none
        and not model.sharded
    ):
        return Classifier(model)
    embedded_model()  # fails now, if it must, and not after hours of work

    @cache
    def visitor() -> Classifier:
        return Classifier(_load_beside(model))

    return lambda exchanges: visitor()(exchanges)


def _load_beside(model: LanguageModel) -> LanguageModel:
    """Load the base that reads, whole in every process."""
    config = replace(
        model.config,
        name="smollm2",
        source=ModelSource.embedded,
        path="",
        revision=None,
        dtype=Dtype.bf16,
        quantization=Quantization.none,
        template_options={},
        context=2048,
        lora=AdapterConfig(rank=1, alpha=1, targets=["all-linear"]),
    )
    return load_copy(config, replace(model.hardware, strategy=Strategy.ddp))
