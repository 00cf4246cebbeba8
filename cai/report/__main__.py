"""``python -m cai.report DIR... [--out FILE]``: join the results of any runs on one scale."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cai.command import command
from cai.report.answers import answer
from cai.report.collect import Question, collect
from cai.report.names import OUTCOMES
from cai.report.page import write_report
from cai.report.tables import comparison_table


def main() -> int:
    """Return the exit code."""
    return command(_main)


def _main() -> int:
    parser = argparse.ArgumentParser(prog="python -m cai.report", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="results or runs")
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="the page to write")
    parser.add_argument("--question", help="what the runs were made to find out")
    parser.add_argument(
        "--outcome", choices=list(OUTCOMES), default="harmlessness_elo", help="what answers it"
    )
    arguments = parser.parse_args()
    result = collect(arguments.folders, Question(arguments.question, arguments.outcome))
    page = write_report(result, arguments.out)
    told = [comparison_table(result), *(answer(result) if result.joined else []), str(page)]
    sys.stdout.write("\n".join(told) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
