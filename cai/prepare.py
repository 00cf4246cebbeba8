"""Make the helpful assistant that ships with the package: ``python -m cai.prepare``.

It takes half an hour on one core, and is due when the built-in data, the recipe in conf/ or the
base change.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path

from hydra import compose, initialize_config_dir

from cai.command import command
from cai.composition import CONF, schema, typed
from cai.config import HelpfulConfig
from cai.config.nodes import PREPARED
from cai.contracts.assistants import HelpfulAssistant, HelpfulSettings, NoInputs
from cai.lm.load import load_model
from cai.lm.prepared import ship
from cai.pipeline.stage import Job
from cai.stages.helpful import ADAPTER, made_for, run
from cai.tracking import Tracker

log = logging.getLogger("cai")


def main() -> int:
    """Train it afresh by the defaults of conf/ and put it in its place."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    schema()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = typed(compose("config", overrides=["stage=helpful", "helpful.prepared=false"]))
    settings = HelpfulSettings(config.model, config.data, config.node("helpful", HelpfulConfig))
    with tempfile.TemporaryDirectory() as scratch:
        tracker = Tracker("helpful", Path(scratch))
        out = HelpfulAssistant("helpful", "prepared", Path(scratch))
        run(settings, NoInputs(), out, Job(config.hardware, config.trainer, tracker))
        model = load_model(settings.model, config.hardware)
        model.add_adapter(ADAPTER, 0, out.model)
        ship(model, ADAPTER, made_for(settings, model), PREPARED)
    log.info("written: %s", PREPARED)
    return 0


if __name__ == "__main__":
    sys.exit(command(main))
