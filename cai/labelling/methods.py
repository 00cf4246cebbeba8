"""The table of methods: which way of asking belongs to which setting."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cai.config import FeedbackConfig, Method
from cai.constitution.principles import Constitution
from cai.labelling.answers import Answerer, FeedbackModel, FewShots, Shown
from cai.labelling.chains import ChainOfThought
from cai.labelling.choice import MultipleChoice
from cai.labelling.contrast import Contrast
from cai.labelling.judge import Judge
from cai.labelling.probe import Probe
from cai.labelling.remote import remote_answerer
from cai.lm.embedded import cache_folder


@dataclass(frozen=True)
class _Given:
    """What a method is made of."""

    settings: FeedbackConfig
    constitution: Constitution
    shown: Shown
    feedback_model: FeedbackModel
    seed: int


def _choice(given: _Given) -> Answerer:
    settings = given.settings
    demonstrations = list(given.shown.demonstrations[: settings.few_shots])
    shots = FewShots(demonstrations, given.constitution.comparison, given.seed)
    if settings.endpoint.used:
        return remote_answerer(settings, shots, cache_folder() / "endpoint")
    if settings.cot:
        return ChainOfThought(given.feedback_model, settings, shots)
    return MultipleChoice(given.feedback_model, shots)


def _contrast(given: _Given) -> Answerer:
    return Contrast(given.feedback_model, given.constitution.comparison, given.shown.demonstrations)


def _probe(given: _Given) -> Answerer:
    return Probe(given.feedback_model, given.constitution.comparison, given.shown.judgements)


METHODS: Mapping[Method, Callable[[_Given], Answerer]] = {
    Method.choice: _choice,
    Method.contrast: _contrast,
    Method.probe: _probe,
}


def make_judge(
    settings: FeedbackConfig,
    constitution: Constitution,
    shown: Shown,
    feedback_model: FeedbackModel,
    seed: int,
) -> Judge:
    """Choose the method that the settings ask for.

    Args:
        settings: Of the feedback stage.
        constitution: Its comparison principles are asked about.
        shown: Examples.
        feedback_model: Who answers, unless there is an endpoint.
        seed: Of draws and chains.
    """
    method = METHODS[settings.asked_by](_Given(settings, constitution, shown, feedback_model, seed))
    return Judge(method, constitution.comparison, settings, seed)
