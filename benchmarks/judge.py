"""What a judge agrees with: people's comparisons from outside, beside the longer-reply floor.

    python benchmarks/judge.py --data DIR --run OUTPUTS [--rows N] [KEY=VALUE ...]

DIR holds the published ``cai-paper/evals/438HHHEvaluations.jsonl``,
``hh-rlhf/harmless-base/*.jsonl.gz``, ``preference/oasst*.jsonl.gz`` and
``preference/pandalm*.jsonl``. OUTPUTS is where ``python -m cai stage=judge`` with the same
KEY=VALUEs has written. N comparisons of each set are drawn; intervals are from a bootstrap over
prompts. Nothing is fitted here. Of HHH the kind of each question is not known, so both axes answer.
"""

from __future__ import annotations

import argparse
import itertools
import random
from collections.abc import Iterator
from pathlib import Path

from side_by_side import settings, table

from cai.config import BadRows, JudgeConfig
from cai.contracts.judges import JudgeModels
from cai.contracts.table import stages
from cai.data.forms import Forms
from cai.data.paper_evals import PaperTest, read_paper_tests
from cai.data.records import Comparison, Prompt
from cai.data.rows import read_rows
from cai.data.source import Source
from cai.judging.exam import Paper, sit
from cai.judging.load import load_judge
from cai.lm.load import load_model
from cai.pipeline.plan import plan
from cai.pipeline.store import Store
from cai.results.common import AXES

SETS = {
    "hh-rlhf, harmless": (["hh-rlhf/harmless-base/*.jsonl.gz"], AXES),
    "OASST": (["preference/oasst*.jsonl.gz"], AXES[1:]),
    "PandaLM": (["preference/pandalm*.jsonl"], AXES[1:]),
}
"""Files of each set and the axes that it is put to."""


def pairs(folder: Path, patterns: list[str]) -> Iterator[Comparison]:
    """Yield the comparisons of a set whose sides differ in their last reply alone."""
    paths = itertools.chain.from_iterable(sorted(folder.glob(pattern)) for pattern in patterns)
    for path in paths:
        forms = Forms("people", "people")
        yield from read_rows(Source("--data", path), forms.comparison, BadRows.skip)


def of_paper(folder: Path) -> Iterator[Comparison]:
    """Yield the paper's own comparisons, the better dialogue first."""
    tests = {test.test: test.items for test in read_paper_tests(folder, BadRows.skip)}
    for item in tests[PaperTest.hhh]:
        better, worse = item.talks
        if better[:-1] == worse[:-1]:
            prompt = Prompt(item.id, "hhh", better[:-1])
            yield Comparison(prompt, better[-1].text, worse[-1].text, 1.0, "hhh")


def drawn(records: Iterator[Comparison], n: int) -> list[Comparison]:
    """Draw comparisons; every other one has its sides swapped, so that order tells nothing."""
    found = list(records)
    chosen = random.Random(0).sample(found, min(n, len(found)))
    return [pair if k % 2 else pair.swap() for k, pair in enumerate(chosen)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_args()
    config = settings("stage=judge", *given.overrides)
    [step] = plan(config, Store(given.run / "artifacts"), stages())
    trained = JudgeModels("judge", step.key, given.run / "artifacts" / f"judge-{step.key[:12]}")
    model = load_model(config.model, config.hardware)
    judge = load_judge(config.node("judge", JudgeConfig), model, trained, config.hardware)
    papers = [
        Paper(axis, name, drawn(pairs(given.data, patterns), given.rows))
        for name, (patterns, axes) in SETS.items()
        for axis in axes
    ]
    hhh = drawn(of_paper(given.data / "cai-paper" / "evals"), given.rows)
    rows = []
    for paper in (*papers, *(Paper(axis, "HHH of the paper", hhh) for axis in AXES)):
        exam = sit(judge, paper)
        right = exam.accuracy
        shown = f"{right.value:.3f} [{right.low:.3f}, {right.high:.3f}]"
        ece = "" if exam.ece is None else f"{exam.ece:.3f}"
        rows.append([paper.whose, paper.axis, str(exam.n), shown, f"{exam.longer_wins:.3f}", ece])
    print(table(["set", "axis", "pairs", "agrees", "longer reply", "ECE"], rows))


if __name__ == "__main__":
    main()
