"""``python -m cai.export RUN --system rl_cai --to DIR``: take a model or the data of a run away.

A model becomes a folder that transformers and vLLM load without this project: all weights with the
adapter in them (``--merged``), or the adapter alone. ``--data`` writes the rows of every stage for
`datasets` and TRL. ``--push`` uploads the folder, too; private unless ``--public`` is given.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cai.command import check_room, command
from cai.config import Dtype


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    made = argparse.ArgumentParser(prog="python -m cai.export", description=__doc__)
    made.add_argument("run", type=Path, metavar="RUN", help="of outputs/runs or outputs/artifacts")
    what = made.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--system", metavar="NAME", help="helpful, sl_cai, the recipe's name, pm, twin"
    )
    what.add_argument("--data", action="store_true", help="the rows of every stage")
    made.add_argument("--to", type=Path, required=True, metavar="DIR", help="a new folder")
    form = made.add_mutually_exclusive_group()
    form.add_argument("--merged", action="store_true", help="all weights (default)")
    form.add_argument(
        "--adapter", action="store_true", help="in peft's format, with its base's name"
    )
    made.add_argument(
        "--dtype", choices=[d.value for d in Dtype], help="of --merged: fp32 (default)"
    )
    made.add_argument("--push", metavar="OWNER/NAME", help="upload it, too; private")
    made.add_argument("--public", action="store_true", help="let everybody see what is uploaded")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    reader = parser()
    options = reader.parse_args(arguments)
    if options.public and not options.push:
        reader.error("--public is about --push")
    if options.data and (options.merged or options.adapter):
        reader.error("--merged and --adapter are about --system")
    if options.dtype and (options.data or options.adapter):
        reader.error("--dtype is about --merged")
    return command(
        lambda: _export(options), "nothing was left half made, and the same command begins"
    )


def _export(options: argparse.Namespace) -> int:
    # Late, for it takes seconds, and a mistake on the command line is said at once.
    check_room()
    from cai.export.data import take_data
    from cai.export.hub import Repository, push
    from cai.export.models import Form
    from cai.export.take import Wanted, take_model
    from cai.run import quieten

    quieten()
    repository = None
    if options.push:
        kind = "dataset" if options.data else "model"
        repository = Repository(options.push, kind, options.public)
        repository.check()
    wanted = Wanted(options.run, options.to, repository)
    if options.data:
        take_data(wanted)
    else:
        form = Form(not options.adapter, Dtype(options.dtype or Dtype.fp32))
        take_model(wanted, options.system, form)
    sys.stdout.write(f"{options.to}\n")
    if repository is not None:
        sys.stdout.write(f"{push(options.to, repository)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
