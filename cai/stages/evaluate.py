"""Helpful-only assistant, SL-CAI and RL-CAI side by side on prompts that none has seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from cai.contracts.policies import EvaluateInputs, EvaluateSettings, Evaluation
from cai.data.persona import read_persona
from cai.data.records import Prompt
from cai.data.sources import load_corpus
from cai.errors import UserError
from cai.evaluation.departures import departures
from cai.evaluation.harmfulness import Harmfulness, RatedData, train_regressor
from cai.evaluation.judged import judge_matches, judge_scores
from cai.evaluation.measures import (
    Metrics,
    divergences,
    entropy,
    score_metrics,
    style_metrics,
    summaries,
    text_metrics,
)
from cai.evaluation.opinions import constitution_matches, human_matches, ratings
from cai.evaluation.paper_tests import PaperTests
from cai.evaluation.persona import measure_persona
from cai.evaluation.systems import (
    Context,
    held_out_prompts,
    load_systems,
    reply_trees,
    sample_all,
)
from cai.evaluation.upstream import Scorers, gather
from cai.files import remove
from cai.jsonl import to_json
from cai.judging.load import load_judge
from cai.lm.load import load_chat
from cai.pipeline.stage import Job, Result, field_names
from cai.results.systems import Match, Reply, StageRun, Summary
from cai.sampling.fitting import Fitting, Rooms
from cai.sampling.speaker import load_speaker
from cai.tracking import Tracker
from cai.training.reward import load_reward_model
from cai.training.rollouts import RewardModel

SHOWN = 96
"""Replies that go to the tracker."""


def notes(settings: EvaluateSettings) -> list[str]:
    """Say which rows do not fit."""
    fitting = Fitting(load_chat(settings.model), settings.data.too_long, "evaluate")
    return fitting.notes(load_corpus(settings.data), _rooms(settings))


def _rooms(settings: EvaluateSettings) -> Rooms:
    sets = ("red_team", "borderline", "helpful")
    return dict.fromkeys(sets, settings.evaluate.reply_tokens)


def run(settings: EvaluateSettings, inputs: EvaluateInputs, out: Evaluation, job: Job) -> None:
    """Sample, judge and measure; the report is drawn from what is written here."""
    model = load_speaker(settings.model, job)
    fitting = Fitting(model.chat, settings.data.too_long, "evaluate")
    corpus = fitting.corpus(load_corpus(settings.data), _rooms(settings))
    context = Context(settings, job.hardware, model, load_systems(settings, model, inputs))
    pm = load_reward_model(job.hardware, model, inputs.pm, "model")
    twin = load_reward_model(job.hardware, model, inputs.pm, "twin")
    if pm is None:
        raise UserError("the pm stage has no preference model: delete its result and run again")
    prompts = held_out_prompts(settings.evaluate.prompts, corpus)
    # What a user gives is read before hours are spent on sampling.
    given = _given(context, prompts)
    judge = load_judge(settings.judge, model, inputs.judge, job.hardware)
    rows = _scored(context, sample_all(context, prompts, out, pm), pm, twin)
    rows = judge_scores(judge, rows)
    matches = judge_matches(context, judge, inputs.judge.name, rows)
    if settings.evaluate.opinions.constitution:
        matches += constitution_matches(context, rows)
    matches += given.choices
    metrics = _measure(context, rows, matches)
    if given.rated is not None:
        regressor = train_regressor(context, given.rated, out, job)
        harmfulness = Harmfulness(context, regressor)
        rows, harm = harmfulness.measure(rows, prompts["red_team"], out)
        _add(metrics, harm)
    if settings.evaluate.persona:
        _add(metrics, measure_persona(context, read_persona(), out))
    _track(metrics, settings.recipe.name, job.tracker)
    if folder := settings.evaluate.paper_tests.folder:
        judges = {"pm": pm, **({"twin": twin} if twin else {})}
        job.tracker.metrics(PaperTests(context, Path(folder), judges).run(out), 0)
    _write_rows(rows, matches, out, job.tracker)
    gather(context, inputs, Scorers(judge, pm), out)
    out.summary.write(_summary(context, inputs, metrics))


class _Given(NamedTuple):
    """What an evaluation is given besides the systems; None or empty where it is not."""

    choices: list[Match]
    rated: RatedData | None


def _given(context: Context, prompts: Mapping[str, Sequence[Prompt]]) -> _Given:
    settings = context.evaluate
    asked = [prompt for kind in prompts.values() for prompt in kind]
    bad = context.settings.data.bad_rows
    choices, rated = settings.opinions.human_choices, settings.harmfulness.ratings
    return _Given(
        choices=human_matches(Path(choices), context.systems, asked, bad) if choices else [],
        rated=RatedData(context.settings, Path(rated), context.model) if rated else None,
    )


def _scored(
    context: Context, rows: Sequence[Reply], pm: RewardModel, twin: RewardModel | None
) -> list[Reply]:
    """Add the scores of the PM and of its twin."""
    trees = reply_trees(context.model, rows)
    scores = pm.score(trees, context.micro_tokens).tolist()
    rows = [replace(row, pm_score=score) for row, score in zip(rows, scores, strict=True)]
    if twin is not None:
        scores = twin.score(trees, context.micro_tokens).tolist()
        rows = [replace(row, twin_score=score) for row, score in zip(rows, scores, strict=True)]
    return list(rows)


def _measure(
    context: Context, rows: Sequence[Reply], matches: Sequence[Match]
) -> dict[str, Metrics]:
    metrics: dict[str, Metrics] = {}
    for system in context.systems:
        metrics[system.name] = {
            **style_metrics(rows, system.name),
            **text_metrics(rows, system.name),
            **score_metrics(rows, system.name),
            **entropy(context, rows, system),
        }
    _add(metrics, divergences(context, rows))
    _add(metrics, ratings(matches, context.systems, context.evaluate.bootstrap))
    return metrics


def _add(metrics: dict[str, Metrics], found: dict[str, Metrics]) -> None:
    for name, values in found.items():
        metrics[name] |= values


def _track(metrics: dict[str, Metrics], policy: str, tracker: Tracker) -> None:
    """Record every system's metrics, and those of the policy under one name in all runs."""
    for name, values in {**metrics, "policy": metrics[policy]}.items():
        known = {f"{name}/{k}": m.value for k, m in values.items() if m.value is not None}
        tracker.metrics(known, 0)


def _write_rows(
    rows: Sequence[Reply], matches: Sequence[Match], out: Evaluation, tracker: Tracker
) -> None:
    """Write replies and comparisons without the tokens, which only this stage needs."""
    public = [replace(row, tokens=None, logprob=None) for row in rows]
    tracker.table("replies", to_json(public[:SHOWN], list[Reply]))
    out.replies.write(public)
    out.matches.write(matches)
    for scratch in (out.sampled.path, out.sampled_greedy.path):
        remove(scratch)


def _summary(context: Context, inputs: EvaluateInputs, metrics: dict[str, Metrics]) -> Summary:
    results = _results(inputs)
    settings: dict[str, Any] = {}
    for result in results:
        settings |= _flatten(result.record()["recipe"]["settings"])
    gate = inputs.helpful.gate.read()
    return Summary(
        recipe=context.settings.recipe.name,
        settings=settings,
        departures=departures(settings),
        notes=[f"Gate: {gate.words} (n = {gate.n})."],
        stages=[StageRun(result.stage, result.name) for result in results],
        systems=summaries(context.systems, metrics),
    )


def _results(inputs: EvaluateInputs) -> list[Result]:
    """Return what the evaluation was made from, in the order of the method."""
    order = ("helpful", "revise", "sft", "feedback", "pm", "rl", "judge")
    assert set(order) == set(field_names(inputs))
    found = [getattr(inputs, name) for name in order]
    return [result for result in found if result is not None]


def _flatten(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        elif not isinstance(value, list) or not any(isinstance(item, dict) for item in value):
            flat[prefix + key] = value
    return flat
