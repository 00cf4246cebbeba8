"""``python -m cai.dashboard --project P``: write the dashboards of a W&B project.

What they show is plain data (``SECTIONS``); W&B's library for workspaces turns it into a
workspace, where one explores, and a report, which one reads.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from cai.command import command
from cai.errors import UserError
from cai.results.common import SL_CAI

NAME = "Constitutional AI"
POLICIES = ("rl_cai", "rl_cai_cot", "dpo_cai", "hh_rlhf", "helpful_rlhf")
"""Recipes, and so the names of trained policies in an evaluation."""
SYSTEMS = ("helpful", SL_CAI, *POLICIES)
OFFLINE = (
    "runs that were tracked offline are uploaded with 'wandb sync PATH' for every PATH that "
    "'ls -d outputs/*/*/wandb/offline-run-*' lists (below sweeps one level more), and one is shown "
    "without an account by 'wandb beta leet PATH'"
)


class Kind(Enum):
    """How a panel draws its metrics."""

    line = "line"
    bar = "bar"
    scatter = "scatter"
    parallel = "parallel"
    importance = "importance"
    table = "table"


@dataclass(frozen=True)
class Panel:
    """A plot or a table.

    Attributes:
        title: Above it.
        kind: How it is drawn.
        metrics: What is drawn; of a table its one name.
        x: The axis of a line plot, or of a scatter plot.
    """

    title: str
    kind: Kind
    metrics: tuple[str, ...]
    x: str | None = None


@dataclass(frozen=True)
class Section:
    """Panels that answer one question, which is asked in a sentence."""

    name: str
    question: str
    panels: tuple[Panel, ...]


def _rl(title: str, *metrics: str, x: str = "step") -> Panel:
    return Panel(title, Kind.line, tuple(f"rl/{name}" for name in metrics), f"rl/{x}")


def _evaluation(title: str, metric: str, systems: Sequence[str] = SYSTEMS) -> Panel:
    return Panel(title, Kind.bar, tuple(f"evaluate/{system}/{metric}" for system in systems))


def _pm(title: str, metric: str) -> Panel:
    names = tuple(
        f"pm/pm_{member}/{source}/{metric}"
        for member in ("model", "twin")
        for source in ("harmless", "helpful")
    )
    return Panel(title, Kind.bar, names)


def _table(title: str, name: str) -> Panel:
    return Panel(title, Kind.table, (name,))


OUTCOMES = ("harmlessness_elo", "helpfulness_elo", "evasiveness", "engaged", "over_refusal")
"""Metrics of the policy that experiments are about, the same name in every run."""
FACTORS = (
    "feedback.cot", "pm.label_smoothing", "constitution.name", "rl.kl.coefficient", "seed",
)  # fmt: skip
"""Settings that sweeps vary, as axes of parallel coordinates."""

SECTIONS = (
    Section(
        "Experiments",
        "Which setting makes a difference to the policy? Runs of one arm differ in their seed.",
        (
            *(
                Panel(name.replace("_", " "), Kind.bar, (f"evaluate/policy/{name}",))
                for name in OUTCOMES
            ),
            Panel(
                "Settings and outcomes",
                Kind.parallel,
                (*FACTORS, *(f"evaluate/policy/{name}" for name in OUTCOMES[:3])),
            ),
            *(
                Panel(f"Importance for {name}", Kind.importance, (f"evaluate/policy/{name}",))
                for name in OUTCOMES[:3]
            ),
        ),
    ),
    Section(
        "Systems",
        "Which system is more harmless, and which more helpful? Elo, SL-CAI at 0.",
        (
            _evaluation("Harmlessness Elo", "harmlessness_elo"),
            _evaluation("Helpfulness Elo", "helpfulness_elo"),
            *(
                Panel(
                    f"Elo of {policy}",
                    Kind.scatter,
                    (f"evaluate/{policy}/harmlessness_elo",),
                    f"evaluate/{policy}/helpfulness_elo",
                )
                for policy in POLICIES
            ),
        ),
    ),
    Section(
        "Evasiveness",
        "Does it engage with what it declines, and does it decline what is harmless?",
        (
            _evaluation("Evasive replies to red-team prompts", "evasiveness"),
            _evaluation("Refusals of borderline prompts", "over_refusal"),
            _evaluation("Set phrases in replies to red-team prompts", "boilerplate"),
            _rl("Evasive replies during RL", "evasiveness"),
        ),
    ),
    Section(
        "Reinforcement learning",
        "Does the score rise for a good reason? The twin was never optimised against.",
        (
            _rl("Score", "score"),
            _rl("Score and the twin's, held-out prompts", "watch_score", "twin_score"),
            _rl("KL to the start, nats per reply", "kl"),
            _rl("Square root of KL", "sqrt_kl"),
            _rl("Score over the square root of KL", "score", x="sqrt_kl"),
            _rl("KL coefficient", "kl_coefficient"),
            _rl("Tokens per reply", "length"),
            _rl("Entropy", "entropy"),
        ),
    ),
    Section(
        "Preference model",
        "Is it right on held-out comparisons, and as sure as it should be? Error 0 is calibrated.",
        (
            _pm("Accuracy on held-out comparisons", "accuracy"),
            _pm("Calibration error on held-out comparisons", "ece"),
            _pm("Loss on held-out comparisons", "loss"),
        ),
    ),
    Section(
        "Transcripts",
        "What do they say?",
        (
            _table("Replies of every system", "evaluate/replies"),
            _table("Replies of the policy during RL", "rl/transcripts"),
            _table("Critiques and revisions", "revise/revisions"),
            _table("AI labels", "feedback/labels"),
        ),
    ),
)


def draw(panel: Panel, column: int, row: int) -> Any:
    """Turn a panel into W&B's, at a place in a grid of two columns."""
    import wandb_workspaces.reports.v2 as wr

    layout = wr.Layout(x=12 * column, y=8 * row, w=12, h=8)
    if panel.kind is Kind.table:
        return wr.WeavePanelSummaryTable(table_name=panel.metrics[0], layout=layout)
    if panel.kind is Kind.scatter:
        x, y = (wr.SummaryMetric(name) for name in (panel.x, panel.metrics[0]))
        return wr.ScatterPlot(title=panel.title, x=x, y=y, layout=layout)
    if panel.kind is Kind.bar:
        return wr.BarPlot(title=panel.title, metrics=list(panel.metrics), layout=layout)
    if panel.kind is Kind.parallel:
        columns = [wr.ParallelCoordinatesPlotColumn(_column(name)) for name in panel.metrics]
        return wr.ParallelCoordinatesPlot(columns=columns, title=panel.title, layout=layout)
    if panel.kind is Kind.importance:
        return wr.ParameterImportancePlot(with_respect_to=panel.metrics[0], layout=layout)
    return wr.LinePlot(title=panel.title, x=panel.x, y=list(panel.metrics), layout=layout)


def _column(name: str) -> Any:
    """Name an axis: a metric of the summary, or a setting."""
    import wandb_workspaces.reports.v2 as wr

    return wr.SummaryMetric(name) if "/" in name else wr.Config(name)


def panels_of(section: Section) -> list[Any]:
    """Turn a section's panels into W&B's."""
    return [draw(panel, n % 2, n // 2) for n, panel in enumerate(section.panels)]


def workspace(entity: str, project: str) -> Any:
    """Return the workspace, not yet saved; runs are grouped by sweep, then by arm over seeds."""
    import wandb_workspaces.workspaces as ws

    return ws.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=[
            ws.Section(name=section.name, panels=panels_of(section), is_open=True)
            for section in SECTIONS
        ],
        runset_settings=ws.RunsetSettings(groupby=[ws.Metric("Group"), ws.Config("arm")]),
    )


def report(entity: str, project: str) -> Any:
    """Return the report, not yet saved: every section with its question."""
    import wandb_workspaces.reports.v2 as wr

    blocks: list[Any] = []
    for section in SECTIONS:
        runset = wr.Runset(entity=entity, project=project, name="Runs")
        grid = wr.PanelGrid(runsets=[runset], panels=panels_of(section))
        blocks += [wr.H2(section.name), wr.P(section.question), grid]
    return wr.Report(entity=entity, project=project, title=NAME, width="fluid", blocks=blocks)


def publish(entity: str | None, project: str) -> list[str]:
    """Save the workspace and the report, and return their addresses.

    Raises:
        UserError: If the library is missing, or W&B can't be reached with an account.
    """
    try:
        import wandb
        import wandb_workspaces  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserError(
            "dashboards need W&B's library for workspaces: pip install "
            "'constitutional-ai[dashboard]'"
        ) from error
    try:
        if os.environ.get("WANDB_MODE") in {"offline", "disabled"} or not wandb.login(prompt=False):
            raise UserError(f"there is no W&B account: log in with 'wandb login'; {OFFLINE}")
        entity = entity or wandb.Api().default_entity
        if not entity:
            raise UserError("this W&B account has no default entity: name one with --entity")
        return [made.save().url for made in (workspace(entity, project), report(entity, project))]
    except (wandb.errors.Error, OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UserError(f"W&B did not take the dashboards ({reason}); {OFFLINE}") from error


def main() -> int:
    """Return the exit code."""
    return command(_main)


def _main() -> int:
    summary = "Write the dashboards of a W&B project: a workspace and a report."
    parser = argparse.ArgumentParser(prog="python -m cai.dashboard", description=summary)
    parser.add_argument("--project", required=True, help="tracking.project of the runs")
    parser.add_argument("--entity", help="team or user; default: yours")
    arguments = parser.parse_args()
    addresses = publish(arguments.entity, arguments.project)
    sys.stdout.write("".join(f"{address}\n" for address in addresses))
    return 0


if __name__ == "__main__":
    sys.exit(main())
