"""In short: what each step of the method did in one run, with a verdict from its figures."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from cai.report.collect import Result
from cai.report.effects import Effect, Trend, mean_change, share, share_change
from cai.report.findings import Finding, Floor, Wording, change, level
from cai.report.names import SOURCES, count
from cai.report.systems import System
from cai.results.common import SL_CAI, Metric
from cai.results.labels import HeldOut, LabelReport, PMMetrics
from cai.results.systems import Reply, RevisionSummary

CHANCE = 0.5


def in_short(result: Result) -> list[Finding]:
    """Say what each step of a single run did."""
    steps = result.steps
    found: list[Finding] = []
    start, policy = start_of(result), policy_of(result)
    helpful = next((s for s in result.systems if s.name == "helpful"), None)
    if helpful is not None and policy is not None:
        found += objecting(result.replies, helpful, policy)
    if steps.revisions is not None:
        found += revisions(steps.revisions)
    if helpful is not None and start is not None and start.name == SL_CAI:
        found += ratings(helpful, start, result.judged)
    if steps.labels is not None:
        found += labels(steps.labels)
    if steps.pm is not None:
        found += preference_model(steps.pm)
    if start is not None and policy is not None:
        found += ratings(start, policy, result.judged)
        found += optimisation(result.replies, start, policy)
        found += declining(result.replies, start, policy)
    return found


def policy_of(result: Result) -> System | None:
    """Return the system that the recipe makes."""
    return next((s for s in result.systems if s.name == result.runs[0].recipe), None)


def start_of(result: Result) -> System | None:
    """Return the system that the recipe's policy starts from."""
    from_helpful = result.runs[0].settings.get("recipe.start") == "helpful"
    name = "helpful" if from_helpful else SL_CAI
    return next((system for system in result.systems if system.name == name), None)


def revisions(summary: RevisionSummary) -> Iterator[Finding]:
    """Tell how far the last revision is above the first reply, by pairs of one prompt."""
    if len(summary.by_round) < 2:
        return
    last = summary.by_round[-1]
    if last.change.value is None:
        return
    whose = "judge's" if summary.scored_by == "judge" else "preference model's"
    yield change(
        "Revisions",
        f"Harmlessness score after {count(last.round, 'revision')}, against the first reply",
        Effect(last.change.value, last.change.low, last.change.high, last.n),
        Wording(f"The {whose} score", "prompt", "revisions"),
    )


def labels(report: LabelReport) -> Iterator[Finding]:
    """Compare the labeller's accuracy on known comparisons with chance."""
    parts = (("of the kind that is labelled", report), ("of other kinds", report.other))
    for kind, known in parts:
        if known.accuracy is None or not known.known:
            continue
        effect = share(known.accuracy, known.known)
        yield level(
            "AI labels",
            f"Agreement with people on comparisons {kind}",
            effect,
            Floor("Labels agree with people", "chance", CHANCE, "comparison", "labels"),
        )


def preference_model(metrics: PMMetrics) -> Iterator[Finding]:
    """Compare its accuracy on held-out comparisons with the better of chance and reply length."""
    for source in metrics.sources:
        if source.n:
            name, value = floor_of(source)
            yield level(
                "Preference model",
                f"{SOURCES.get(source.name, source.name)}: held-out accuracy",
                share(source.accuracy, source.n),
                Floor("It ranks pairs rightly", name, value, "pair", "pm"),
            )


def floor_of(source: HeldOut) -> tuple[str, float]:
    """Name what needs no model: a coin, or the longer reply."""
    if source.longer_wins > CHANCE:
        return "the longer reply is better", source.longer_wins
    return "chance", CHANCE


def ratings(start: System, end: System, judged: dict[str, int]) -> Iterator[Finding]:
    """Tell the Elo of one system over another that stands at 0, or the other way round."""
    for axis, noun in (("harmlessness", "Harmlessness"), ("helpfulness", "Helpfulness")):
        metric = f"{axis}_elo"
        one, other = start.metrics.get(metric), end.metrics.get(metric)
        if one is None or other is None:
            continue
        effect = elo_change(one, other, judged.get(metric, 0))
        if effect is not None:
            yield change(
                end.title,
                f"{noun}: Elo against {start.title}",
                effect,
                Wording(noun, "prompt", "systems", 0),
            )


def elo_change(start: Metric, end: Metric, n: int) -> Effect | None:
    """Return the difference of two ratings of which one is the zero of the scale.

    None if neither is: the interval of such a difference is not known.
    """
    if _is_zero(start) and end.value is not None:
        return Effect(end.value, end.low, end.high, n)
    if _is_zero(end) and start.value is not None:
        low = None if start.high is None else 0.0 - start.high
        high = None if start.low is None else 0.0 - start.low
        return Effect(0.0 - start.value, low, high, n)
    return None


def _is_zero(rating: Metric) -> bool:
    """Tell whether a rating is the zero of its scale, which has no interval of its own."""
    return rating.value == 0 and not rating.low and not rating.high


Read = Callable[[Reply], float | None]
Share = tuple[str, str, str, Read, bool]
"""Subject of the sentence, what is counted, the set, how, and whether more is better."""


def by_prompt(
    replies: Sequence[Reply], system: System, sets: Sequence[str], read: Read
) -> dict[str, float]:
    """Average something over each prompt's replies."""
    found: dict[str, list[float]] = defaultdict(list)
    for reply in replies:
        value = read(reply) if reply.system == system.id and reply.set in sets else None
        if value is not None:
            found[f"{reply.set}/{reply.prompt_id}"].append(value)
    return {prompt: statistics.fmean(values) for prompt, values in found.items()}


def optimisation(replies: Sequence[Reply], start: System, end: System) -> Iterator[Finding]:
    """Tell how the score that was trained against moved, and that of the twin, which was not."""
    effects = []
    for read in (_pm_score, _twin_score):
        pairs = [by_prompt(replies, s, ("red_team", "helpful"), read) for s in (start, end)]
        effects.append(mean_change(*pairs))
    trained, twin = effects
    if trained is None or twin is None:
        return
    exploited = (trained.trend(), twin.trend()) == (Trend.rises, Trend.falls)
    subject = "The twin's score"
    if exploited:
        subject = "Over-optimised: while the other rises, the twin's score"
    told = (
        (
            f"Score of the PM that trained it, against {start.title}",
            "The training PM's score",
            trained,
        ),
        ("Score of the twin PM, which it never saw", subject, twin),
    )
    for what, words, effect in told:
        yield change(end.title, what, effect, Wording(words, "prompt", "rl"))


def declining(replies: Sequence[Reply], start: System, end: System) -> Iterator[Finding]:
    """Tell how often replies turn away without a reason, and where there was nothing to decline."""
    told = (
        ("Evasiveness", "Evasive replies to red-team prompts", "red_team", _evasive, False),
        ("Over-refusal", "Prompts declined that only sound harmful", "borderline", _refuses, False),
    )
    return shares("Evasiveness", told, replies, (start, end))


def objecting(replies: Sequence[Reply], helpful: System, end: System) -> Iterator[Finding]:
    """Tell what all steps together did to replies to red-team prompts."""
    told = (
        ("Compliance", "Red-team prompts complied with", "red_team", _complies, False),
        ("Reasoned objection", "Red-team prompts objected to, with a reason", "red_team", _objects,
         True),
    )  # fmt: skip
    return shares("All steps", told, replies, (helpful, end))


def shares(
    step: str, told: Sequence[Share], replies: Sequence[Reply], systems: tuple[System, System]
) -> Iterator[Finding]:
    """Tell how shares of replies change from one system to another."""
    for subject, what, kind, read, better in told:
        effect = share_change(*(by_prompt(replies, system, (kind,), read) for system in systems))
        if effect is not None:
            wording = Wording(subject, "prompt", "systems", better=better)
            yield change(step, f"{what}, against {systems[0].title}", effect, wording)


def _pm_score(reply: Reply) -> float | None:
    return reply.pm_score


def _twin_score(reply: Reply) -> float | None:
    return reply.twin_score


def _evasive(reply: Reply) -> float:
    return float(reply.evasive)


def _refuses(reply: Reply) -> float:
    return float(reply.refusal)


def _complies(reply: Reply) -> float:
    return float(reply.style == "compliance")


def _objects(reply: Reply) -> float:
    return float(reply.style == "engaged")
