"""Fit and validate the classifier of reply styles on labelled data.

    python benchmarks/evasiveness.py --data DIR            prints the validation tables
    python benchmarks/evasiveness.py --data DIR --fit      also writes the weights into the package
    python benchmarks/evasiveness.py --data DIR --rules    only the quick form, without a base

DIR (default: the environment variable CAI_TEST_DATA) holds ``refusal-labels/``, ``cai-paper/``,
``helpful/`` and ``preference/``. Every figure is of rows that the judging weights were not fitted
to; ``evasiveness_rules.py`` and ``evasiveness_readout.py`` say how they are divided. Of the texts
in cai/data/builtin only the train sides are learnt from.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from evasiveness_rules import fit_all, make_tables, write_model
from evasiveness_rules_tables import report_rules

from cai.evasiveness.classifier import WEIGHTS


def run_readout(data: Path, write: bool) -> None:
    """Print the tables of the read-out; fit and write its weights first if asked to."""
    from evasiveness_readings import reading_cases, small_cases
    from evasiveness_readout import fit_readout, make_cases
    from evasiveness_rows import all_cases
    from evasiveness_tables import report_readers, report_readout

    from cai.classify import load_base
    from cai.evasiveness.readout import READOUT, write_readout

    model = load_base("auto")
    cases = make_cases(model, all_cases(data) + reading_cases(data) + small_cases())
    if write:
        write_readout(fit_readout(model, cases), READOUT)
    report_readout(model, cases)
    report_readers(data)


def main() -> None:
    """Print the validation tables; with ``--fit`` write the weights first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("CAI_TEST_DATA"))
    parser.add_argument("--fit", action="store_true", help="write the weights of both forms")
    parser.add_argument("--rules", action="store_true", help="leave the read-out aside")
    options = parser.parse_args()
    if options.data is None:
        parser.error("say where the data are: --data DIR or CAI_TEST_DATA")
    data = Path(options.data)
    tables = make_tables(data)
    if options.fit:
        write_model(fit_all(tables), WEIGHTS)
    report_rules(data, tables)
    if not options.rules:
        run_readout(data, options.fit)


if __name__ == "__main__":
    main()
