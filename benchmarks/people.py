"""A run's systems as a judge would have them that learnt from people's choices alone.

    python benchmarks/people.py --data DIR --judge FOLDER OUTPUTS/artifacts/evaluate-* ...

DIR holds published comparisons, as for ``judge.py``: hh-rlhf's harmless ones for harmlessness,
OASST's and PandaLM's for helpfulness. Read-outs of SmolLM2 are fitted to N of each, and a quarter
as many are held out, by opening; FOLDER keeps them for the next time. They score the replies that
evaluations have kept. Elo is over the system before, with intervals over prompts. Nothing here is
part of any run.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

from judge import SETS, pairs
from side_by_side import settings, table

from cai.algorithms.elo import Contest, rate
from cai.contracts.judges import JudgeModels
from cai.data.records import Comparison
from cai.data.splits import family
from cai.evaluation.judged import judge_scores, outcome_of
from cai.evaluation.measures import AXES as KINDS
from cai.jsonl import Rows
from cai.judging.exam import Paper, sit
from cai.judging.readout import FILE, ReadoutJudge, fit_readout, load_readout, save_direction
from cai.lm.load import load_model
from cai.results.systems import Reply

FILES = {
    "harmlessness": SETS["hh-rlhf, harmless"][0],
    "helpfulness": SETS["OASST"][0] + SETS["PandaLM"][0],
}
"""What people chose by."""
STEPS = {"SL-CAI over the start": ("helpful", "sl_cai"), "RL-CAI over SL-CAI": ("sl_cai", "rl_cai")}
"""Whom a system is put beside."""


def learn_and_sit(data: Path, n: int, kept: JudgeModels) -> ReadoutJudge:
    """Fit a judge, or load the one that was kept; print what it gets right of what is held out."""
    config = settings("stage=judge")
    model, room = load_model(config.model, config.hardware), config.hardware.micro_tokens
    papers = []
    for axis, patterns in FILES.items():
        found = list(pairs(data, patterns))
        openings = sorted({family(pair.prompt.conversation) for pair in found})
        held = set(random.Random(0).sample(openings, len(openings) // 5))
        asked = [pair for pair in found if family(pair.prompt.conversation) in held]
        known = [pair for pair in found if family(pair.prompt.conversation) not in held]
        folder = kept.axis(axis).path
        if not (folder / FILE).exists():
            folder.mkdir(parents=True, exist_ok=True)
            save_direction(fit_readout(model, sample(known, n), room), folder)
        papers.append(Paper(axis, "people", sample(asked, n // 4)))
    judge = load_readout(model, kept, room)
    exams = [sit(judge, paper) for paper in papers]
    rows = [
        [e.axis, str(e.n), f"{e.accuracy.value:.3f} [{e.accuracy.low:.3f}, {e.accuracy.high:.3f}]",
         f"{e.longer_wins:.3f}"]
        for e in exams
    ]  # fmt: skip
    print(table(["axis", "held-out pairs", "right", "longer reply"], rows), flush=True)
    return judge


def sample(found: Sequence[Comparison], n: int) -> list[Comparison]:
    """Draw comparisons, the better reply first."""
    return random.Random(0).sample(list(found), min(n, len(found)))


def contests(rows: Sequence[Reply], systems: tuple[str, str], kind: str) -> list[Contest]:
    """Let two systems meet on every prompt of a kind."""
    first, second = (
        {(row.prompt_id, row.sample): row for row in rows if (row.system, row.set) == (name, kind)}
        for name in systems
    )
    return [
        Contest(*systems, outcome_of(row, second[place]), place[0]) for place, row in first.items()
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=800)
    parser.add_argument("--judge", type=Path, required=True)
    parser.add_argument("results", type=Path, nargs="+")
    given = parser.parse_args()
    judge = learn_and_sit(given.data, given.rows, JudgeModels("judge", "people", given.judge))
    lines = []
    for folder in given.results:
        rows = judge_scores(judge, Rows(folder / "replies.jsonl", Reply).read())
        for step, systems in STEPS.items():
            for kind, axis in KINDS.items():
                met = contests(rows, systems, kind)
                r = rate(met, systems[0])[systems[1]]
                cells = [f"{r.elo:+.0f} [{r.low:.0f}, {r.high:.0f}]", str(len(met))]
                lines.append([folder.name, step, axis, *cells])
    print(table(["evaluation", "", "axis", "Elo", "prompts"], lines))


if __name__ == "__main__":
    main()
