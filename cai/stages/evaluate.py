"""Helpful-only assistant, SL-CAI and RL-CAI side by side on prompts that none has seen."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from cai import parallel
from cai.artifacts import Artifact, read_jsonl, write_json, write_jsonl
from cai.config import Config
from cai.data.persona import read_persona
from cai.data.records import Prompt
from cai.data.sources import load_corpus
from cai.dialogue import from_messages
from cai.evaluation.departures import departures
from cai.evaluation.harmfulness import Harmfulness, RatedData, train_regressor
from cai.evaluation.judges import (
    constitution_matches,
    endpoint_judge,
    human_matches,
    judged_matches,
    ratings,
)
from cai.evaluation.measures import (
    Metrics,
    interval,
    score_metrics,
    style_metrics,
    summary_rows,
    text_metrics,
    token_metrics,
    twin_matches,
)
from cai.evaluation.paper_tests import PaperTests
from cai.evaluation.persona import measure_persona
from cai.evaluation.systems import (
    System,
    held_out_prompts,
    load_systems,
    reply_trees,
    sample_all,
)
from cai.labelling.judge import Answerer
from cai.lm.load import LanguageModel, load_model
from cai.lm.packing import Tree
from cai.sampling.shards import Row
from cai.seeds import seed_of
from cai.stages.rl import load_reward_model
from cai.tracking import Tracker
from cai.training.rollouts import RewardModel

PM_NAMES = {"model": "pm", "twin": "twin"}
"""The folders of the preference models, and their names as judges."""
PUBLIC = ("system", "set", "prompt_id", "kind", "sample", "messages", "response", "style",
          "refusal", "evasive", "boilerplate", "pm_score", "twin_score", "harmfulness")  # fmt: skip


def run(config: Config, inputs: dict[str, Artifact], out: Path, tracker: Tracker) -> None:
    """Sample, judge and measure; the report is drawn from what is written here."""
    settings = config.evaluate
    assert settings is not None
    corpus = load_corpus(config.data)
    model = load_model(config.model, config.hardware)
    systems = load_systems(config, model, inputs)
    loaded = {
        name: load_reward_model(config.hardware, model, inputs["pm"].path, name)
        for name in ("model", "twin")
    }
    judges = {PM_NAMES[name]: judge for name, judge in loaded.items() if judge is not None}
    prompts = held_out_prompts(config, corpus)
    # What a user gives is read before hours are spent on sampling.
    given = _given(config, model, systems, prompts)
    rows = sample_all(config, model, systems, prompts, out, judges["pm"])
    trees = reply_trees(model, rows)
    for name, judge in judges.items():
        scores = judge.score(trees, config.hardware.micro_tokens).tolist()
        for row, score in zip(rows, scores, strict=True):
            row[f"{name}_score"] = score
    matches = _matches(config, model, systems, rows, given)
    metrics = _measure(config, model, systems, rows, matches)
    if given.rated is not None:
        regressor = train_regressor(config, model, given.rated, out, tracker)
        harmfulness = Harmfulness(config, model, regressor)
        _add(metrics, harmfulness.measure(systems, rows, prompts["red_team"], out))
    if settings.persona:
        _add(metrics, measure_persona(model, systems, read_persona(), out))
    _track(metrics, tracker)
    if settings.paper_tests:
        tracker.metrics(PaperTests(config, model, systems, judges).run(out), 0)
    _write_rows(rows, matches, out, tracker)
    _copy_upstream(config, model, judges["pm"], inputs, out / "upstream")
    write_json(out / "summary.json", _summary(config, inputs, systems, metrics))


class _Given(NamedTuple):
    """What an evaluation is given besides the systems; None or empty where it is not."""

    choices: list[Row]
    endpoint: Answerer | None
    rated: RatedData | None


def _given(
    config: Config,
    model: LanguageModel,
    systems: list[System],
    prompts: dict[str, list[Prompt]],
) -> _Given:
    settings = config.evaluate
    assert settings is not None
    asked = [prompt for kind in prompts.values() for prompt in kind]
    path = settings.human_choices
    return _Given(
        choices=human_matches(Path(path), systems, asked) if path else [],
        endpoint=_endpoint(config),
        rated=RatedData(config, model) if settings.ratings else None,
    )


def _endpoint(config: Config) -> Answerer | None:
    """Connect to the judge behind an address, in the one process that asks."""
    assert config.evaluate is not None
    used = config.evaluate.judge_endpoint.used and parallel.is_global_zero()
    return endpoint_judge(config) if used else None


def _matches(
    config: Config,
    model: LanguageModel,
    systems: list[System],
    rows: list[Row],
    given: _Given,
) -> list[Row]:
    """Let all judges compare; the PM that a policy was trained against is none of them."""
    assert config.evaluate is not None
    matches = twin_matches(rows, systems) if "twin_score" in rows[0] else []
    if config.evaluate.constitution_judge:
        matches += constitution_matches(config, model, systems, rows)
    if config.evaluate.judge_endpoint.used:  # one process asks, and tells the others
        answers = given.endpoint
        asked = answers and judged_matches(("endpoint", answers), config, systems, rows)
        matches += parallel.broadcast(asked)
    return matches + given.choices


def _track(metrics: dict[str, Metrics], tracker: Tracker) -> None:
    for name, values in metrics.items():
        tracker.metrics(
            {f"{name}/{k}": v["value"] for k, v in values.items() if v["value"] is not None}, 0
        )


def _write_rows(rows: list[Row], matches: list[Row], out: Path, tracker: Tracker) -> None:
    """Write replies and comparisons without the tokens, which only this stage needs."""
    public = [{key: row[key] for key in PUBLIC if key in row} for row in rows]
    tracker.table("replies", public[:96])
    write_jsonl(out / "replies.jsonl", public)
    write_jsonl(out / "matches.jsonl", matches)
    for name in ("sampled.jsonl", "sampled_greedy.jsonl"):
        (out / name).unlink(missing_ok=True)


def _add(metrics: dict[str, Metrics], found: dict[str, Metrics]) -> None:
    for name, values in found.items():
        metrics[name] |= values


def _measure(
    config: Config,
    model: LanguageModel,
    systems: list[System],
    rows: list[Row],
    matches: list[Row],
) -> dict[str, Metrics]:
    assert config.evaluate is not None
    reference = next((s for s in systems if s.name == "sl_cai"), None)
    metrics: dict[str, Metrics] = {}
    for system in systems:
        metrics[system.name] = {
            **style_metrics(rows, system.name),
            **text_metrics(rows, system.name),
            **score_metrics(rows, system.name),
            **token_metrics(config, model, rows, system, reference),
        }
    _add(metrics, ratings(matches, systems, config.evaluate.bootstrap))
    return metrics


def _copy_upstream(
    config: Config, model: LanguageModel, pm: RewardModel, inputs: dict[str, Artifact], out: Path
) -> None:
    """Gather what the report shows of earlier stages, so that the result stands alone."""
    out.mkdir(exist_ok=True)
    copies = {
        "feedback": ("report.json", "feedback.json"),
        "rl": ("history.jsonl", "rl.jsonl"),
    }
    for stage, (source, target) in copies.items():
        if stage in inputs:
            shutil.copyfile(inputs[stage].path / source, out / target)
    if (path := inputs["rl"].path / "transcripts.jsonl").exists():
        shutil.copyfile(path, out / "rl_transcripts.jsonl")
    twin = inputs["pm"].path / "twin" / "metrics.json"
    known = json.loads((inputs["pm"].path / "model" / "metrics.json").read_text())
    if twin.exists():
        known["twin"] = json.loads(twin.read_text())
    write_json(out / "pm.json", known)
    if (path := out.parent / "harmfulness" / "metrics.json").exists():
        shutil.copyfile(path, out / "harmfulness.json")
    if "revise" in inputs:
        write_json(out / "revise.json", _revisions(config, model, pm, inputs["revise"]))


def _revisions(
    config: Config, model: LanguageModel, pm: RewardModel, artifact: Artifact
) -> dict[str, Any]:
    """Score replies and revisions round by round, and pick transcripts."""
    rows = read_jsonl(artifact.path / "revisions.jsonl")
    by_round = []
    for number in range(1 + max((len(row["rounds"]) for row in rows), default=0)):
        texts = [
            row["rounds"][number - 1]["revision"] if number else row["response"] for row in rows
        ]
        trees = [
            Tree(model.chat.prompt(from_messages(row["messages"])), [model.chat.response(text)])
            for row, text in zip(rows, texts, strict=True)
        ]
        scores = pm.score(trees, config.hardware.micro_tokens)
        error = 1.96 * float(scores.std()) / len(rows) ** 0.5 if len(rows) > 1 else 0.0
        mean = float(scores.mean())
        value = interval(mean, mean - error, mean + error)
        by_round.append(
            {
                "round": number,
                "harmless": value["value"],
                "low": value["low"],
                "high": value["high"],
            }
        )
    shown = sorted(rows, key=lambda row: seed_of("shown", row["prompt_id"]))[:8]
    return {
        "yield": json.loads((artifact.path / "yield.json").read_text()),
        "pm_by_round": by_round,
        "transcripts": shown,
    }


def _summary(
    config: Config,
    inputs: dict[str, Artifact],
    systems: list[System],
    metrics: dict[str, Metrics],
) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for artifact in inputs.values():
        settings |= _flatten(artifact.record()["recipe"]["settings"])
    gate = json.loads((inputs["helpful"].path / "gate.json").read_text())
    return {
        "recipe": config.recipe.name,
        "settings": settings,
        "departures": departures(settings),
        "notes": [f"Gate: {gate['words']} (n = {gate['n']})."],
        "stages": [{"stage": name, "artifact": artifact.name} for name, artifact in inputs.items()],
        "systems": summary_rows(systems, metrics),
    }


def _flatten(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        elif not isinstance(value, list) or not any(isinstance(item, dict) for item in value):
            flat[prefix + key] = value
    return flat
