"""Make what ships with the package: ``python -m cai.prepare [helpful] [judge] [labels]``.

The helpful assistant takes half an hour on one core, the directions of the judge and of the
labeller two minutes each. They are due when the built-in data, what conf/ says of them or the base
change; a test tells.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir

from cai.command import command
from cai.composition import CONF, schema, typed
from cai.config import Config
from cai.config.nodes import PREPARED
from cai.constitution.principles import load_constitution
from cai.contracts.assistants import HelpfulAssistant, HelpfulSettings, NoInputs
from cai.contracts.judges import JudgeSettings
from cai.contracts.preferences import FeedbackSettings
from cai.contracts.table import stages
from cai.errors import UserError
from cai.judging import readout
from cai.judging.learn import drawn
from cai.labelling import probe
from cai.labelling.answers import FeedbackModel
from cai.lm.load import load_model
from cai.lm.prepared import base_fingerprint, ship
from cai.pipeline.stage import Job
from cai.results.common import AXES
from cai.stages import feedback, helpful, judge
from cai.tracking import Tracker

log = logging.getLogger("cai")


def prepare_helpful(config: Config) -> Path:
    """Train the assistant afresh; it ships in half precision."""
    settings: HelpfulSettings = stages()["helpful"].read(config)
    with tempfile.TemporaryDirectory() as scratch:
        out = HelpfulAssistant("helpful", "prepared", Path(scratch))
        tracker = Tracker("helpful", Path(scratch))
        helpful.run(settings, NoInputs(), out, Job(config.hardware, config.trainer, tracker))
        model = load_model(settings.model, config.hardware)
        model.add_adapter(helpful.ADAPTER, 0, out.model)
        state = model.adapter_state(helpful.ADAPTER)
        low = {key: value.to(torch.bfloat16) for key, value in state.items()}
        ship(low, helpful.made_for(settings, model), PREPARED)
    return PREPARED


def prepare_judge(config: Config) -> Path:
    """Fit the directions of both axes."""
    settings: JudgeSettings = stages()["judge"].read(config)
    model = load_model(settings.model, config.hardware)
    for axis, sifted in zip(AXES, judge.sift(settings), strict=True):
        chosen = drawn(sifted.rows.train, settings.judge.pairs, axis)
        found = readout.fit_readout(model, chosen, config.hardware.micro_tokens)
        made = {"base": base_fingerprint(model), **readout.made_for(model, chosen)}
        ship(found.state, made, readout.PREPARED / axis, readout.FILE)
    return readout.PREPARED


def prepare_labels(config: Config) -> Path:
    """Fit the direction that the assistant that ships labels by."""
    settings: FeedbackSettings = stages()["feedback"].read(config)
    model = load_model(settings.model, config.hardware)
    model.add_adapter(feedback.JUDGE, 0, PREPARED)
    found = probe.Probe(
        FeedbackModel(model, feedback.JUDGE),
        load_constitution(settings.constitution).comparison,
        feedback.shown(feedback.fitting_corpus(settings)).judgements,
        afresh=True,
    )
    made = {"base": base_fingerprint(model), **found.made}
    ship({"direction": torch.from_numpy(found.direction)}, made, probe.PREPARED, probe.FILE)
    return probe.PREPARED


PARTS: Mapping[str, Callable[[Config], Path]] = {
    "helpful": prepare_helpful,
    "judge": prepare_judge,
    "labels": prepare_labels,
}
"""What ships; each part may be made of the one before."""


def main() -> int:
    """Make what is named, or all of it, by the defaults of conf/, and put it in its place."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    named = sys.argv[1:] or list(PARTS)
    if unknown := next((name for name in named if name not in PARTS), None):
        raise UserError(f"{unknown!r} does not ship: name some of {', '.join(PARTS)}")
    schema()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = typed(compose("config", overrides=["helpful.prepared=false"]))
    for name in named:
        log.info("%s: written to %s", name, PARTS[name](config))
    return 0


if __name__ == "__main__":
    sys.exit(command(main))
