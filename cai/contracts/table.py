"""The table of stages.

Another project adds one by a line of its ``pyproject.toml``: an entry point under ``cai.stages``
that names a ``Stage``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from cai.config import Labels as LabelSource
from cai.config import RecipeConfig, Start
from cai.contracts import assistants, judges, policies, preferences
from cai.errors import UserError
from cai.pipeline.stage import Stage, at, check

GROUP = "cai.stages"
"""Entry points of this name add stages."""


def _rl_needs(settings: policies.RLSettings) -> tuple[str, ...]:
    return (settings.recipe.start.value, "pm")


def _pm_needs(settings: preferences.PMStageSettings) -> tuple[str, ...]:
    ai = settings.recipe.labels is LabelSource.ai
    return ("helpful", "feedback") if ai else ("helpful",)


def _evaluate_needs(settings: policies.EvaluateSettings) -> tuple[str, ...]:
    recipe: RecipeConfig = settings.recipe
    ai = recipe.labels is LabelSource.ai
    supervised = ("revise", "sft") if ai or recipe.start is Start.sft else ()
    return ("helpful", *supervised, *(("feedback",) if ai else ()), "pm", "rl", "judge")


_templates = at("cai.lm.load:template_marks")

BUILTIN: tuple[Stage[Any, Any, Any], ...] = (
    Stage(
        name="helpful",
        settings=assistants.HelpfulSettings,
        inputs=assistants.NoInputs,
        result=assistants.HelpfulAssistant,
        run=at("cai.stages.helpful:run"),
        marks=_templates,
        notes=at("cai.stages.helpful:notes"),
        cost=at("cai.contracts.costs:helpful"),
    ),
    Stage(
        name="revise",
        settings=assistants.ReviseSettings,
        inputs=assistants.ReviseInputs,
        result=assistants.Revisions,
        run=at("cai.stages.revise:run"),
        marks=_templates,
        notes=at("cai.stages.revise:notes"),
        cost=at("cai.contracts.costs:revise"),
    ),
    Stage(
        name="sft",
        settings=assistants.SFTSettings,
        inputs=assistants.SFTInputs,
        result=assistants.SLCAI,
        run=at("cai.stages.sft:run"),
        marks=_templates,
        notes=at("cai.stages.sft:notes"),
        cost=at("cai.contracts.costs:sft"),
    ),
    Stage(
        name="feedback",
        settings=preferences.FeedbackSettings,
        inputs=preferences.FeedbackInputs,
        result=preferences.Labels,
        run=at("cai.stages.feedback:run"),
        marks=_templates,
        notes=at("cai.stages.feedback:notes"),
        cost=at("cai.contracts.costs:feedback"),
        shared=lambda settings: not settings.feedback.endpoint.used,
    ),
    Stage(
        name="pm",
        settings=preferences.PMStageSettings,
        inputs=preferences.PMInputs,
        result=preferences.PreferenceModels,
        run=at("cai.stages.pm:run"),
        marks=_templates,
        notes=at("cai.stages.pm:notes"),
        cost=at("cai.contracts.costs:pm"),
        needs=_pm_needs,
    ),
    Stage(
        name="rl",
        settings=policies.RLSettings,
        inputs=policies.RLInputs,
        result=policies.PolicyResult,
        run=at("cai.stages.rl:run"),
        marks=_templates,
        notes=at("cai.stages.rl:notes"),
        cost=at("cai.contracts.costs:rl"),
        needs=_rl_needs,
    ),
    Stage(
        name="judge",
        settings=judges.JudgeSettings,
        inputs=assistants.NoInputs,
        result=judges.JudgeModels,
        run=at("cai.stages.judge:run"),
        marks=_templates,
        notes=at("cai.stages.judge:notes"),
        cost=at("cai.contracts.costs:judge"),
    ),
    Stage(
        name="evaluate",
        settings=policies.EvaluateSettings,
        inputs=policies.EvaluateInputs,
        result=policies.Evaluation,
        run=at("cai.stages.evaluate:run"),
        version=3,
        marks=_templates,
        notes=at("cai.stages.evaluate:notes"),
        cost=at("cai.contracts.costs:evaluate"),
        needs=_evaluate_needs,
    ),
)
"""The stages of the method, upstream first."""


@cache
def stages() -> Mapping[str, Stage[Any, Any, Any]]:
    """Return all stages by name, those of other projects included.

    Raises:
        UserError: If an entry point can't be loaded or is no sound stage.
    """
    return table([*BUILTIN, *_added()])


def table(chosen: Iterable[Stage[Any, Any, Any]]) -> Mapping[str, Stage[Any, Any, Any]]:
    """Check stages and put them in a table.

    Raises:
        UserError: If one is not sound, or two have one name.
    """
    found: dict[str, Stage[Any, Any, Any]] = {}
    for stage in chosen:
        if stage.name in found:
            raise UserError(f"two stages are named {stage.name!r}: rename the one you added")
        check(stage)
        found[stage.name] = stage
    return found


def _added() -> Iterable[Stage[Any, Any, Any]]:
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        try:
            stage = point.load()
        except (ImportError, AttributeError) as error:
            raise UserError(
                f"the stage {point.name!r} can't be loaded from {point.value} ({error}): correct "
                f"its line under {GROUP} in the project that adds it"
            ) from error
        if not isinstance(stage, Stage) or stage.name != point.name:
            raise UserError(
                f"{point.value} is no stage of the name {point.name!r}: it should be a "
                "cai.pipeline.stage.Stage with that name"
            )
        yield stage
