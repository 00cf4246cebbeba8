"""The table of methods: which way of asking belongs to which setting."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cai.config import FeedbackConfig, Method
from cai.constitution.principles import Constitution
from cai.errors import UserError
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

    Raises:
        UserError: If the settings do not go together.
    """
    name = settings.method.value
    if settings.method is not Method.choice:  # the only one that asks in words
        if settings.cot:
            raise UserError(f"feedback.cot=true needs feedback.method=choice: {name} asks nothing")
        if settings.endpoint.used:
            raise UserError(
                f"feedback.method={name} needs a local model: use feedback.method=choice with "
                f"feedback.endpoint.url={settings.endpoint.url}"
            )
    method = METHODS[settings.method](_Given(settings, constitution, shown, feedback_model, seed))
    return Judge(method, constitution.comparison, settings, seed)
