"""The helpful assistant that ships: taken where everything matches, and made for what is here."""

import json
import logging
import shutil

import pytest
import torch
from hydra import compose, initialize_config_dir

from cai.composition import CONF, typed
from cai.config import HelpfulConfig
from cai.config.nodes import PREPARED
from cai.contracts.assistants import HelpfulAssistant, HelpfulSettings, NoInputs
from cai.lm.language_model import ADAPTER_FILE
from cai.lm.load import load_model
from cai.lm.prepared import RECORD, misfit, ship
from cai.pipeline.stage import Job
from cai.stages import helpful
from cai.tracking import Tracker

TOUR = ("model=tiny", "scale=tour", "tracking=off", "hardware=cpu", "hardware.threads=1")


def chosen(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return typed(compose("config", overrides=["stage=helpful", *overrides]))


def settings_of(config):
    return HelpfulSettings(config.model, config.data, config.node("helpful", HelpfulConfig))


def made(folder, config):
    out = HelpfulAssistant("helpful", "", folder)
    folder.mkdir()
    job = Job(config.hardware, config.trainer, Tracker("helpful", folder))
    helpful.run(settings_of(config), NoInputs(), out, job)
    return out


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """Ship an assistant of the tiny model."""
    folder = tmp_path_factory.mktemp("prepared")
    config = chosen(*TOUR)
    model = load_model(config.model, config.hardware)
    model.add_adapter("other", 0)
    for parameter in model.adapter_parameters("other"):
        parameter.data += 0.01
    ship(model, "other", helpful.made_for(settings_of(config), model), folder)
    weights = {key: value.clone() for key, value in model.adapter_state("other").items()}
    return folder, weights


@pytest.fixture(autouse=True)
def in_its_place(shipped, monkeypatch):
    monkeypatch.setattr(helpful, "PREPARED", shipped[0])


def weights(result, config):
    model = load_model(config.model, config.hardware)
    model.add_adapter("a", 0, result.model)
    return model.adapter_state("a")


def test_what_ships_is_taken(shipped, tmp_path):
    config = chosen(*TOUR, "helpful.prepared=true")
    taken = made(tmp_path / "taken", config)
    assert not taken.history.exists()
    assert taken.gate.read().n == 4
    for key, value in weights(taken, config).items():
        assert torch.equal(value, shipped[1][key].to(torch.bfloat16).float())


def test_another_recipe_is_trained_afresh(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    config = chosen(
        *TOUR, "helpful.prepared=true", "helpful.examples=2", "helpful.demonstrations=1"
    )
    assert made(tmp_path / "fresh", config).history.exists()
    said = "helpful: trained afresh; of the assistant that ships, the recipe is another"
    assert said in caplog.text


@pytest.mark.parametrize("change, said", [
    ("hardware.threads=2", None),
    ("helpful.gate_prompts=9", None),
    ("helpful.optimizer.lr=1e-3", "the recipe is another"),
    ("model.lora.alpha=4", "the lora is another"),
    ("data.seed=1", "the seed is another"),
    ("data.folder=elsewhere", "the data is another"),
])  # fmt: skip
def test_what_it_was_made_for_decides(shipped, tiny, change, said):
    wanted = helpful.made_for(settings_of(chosen(*TOUR, change)), tiny)
    assert misfit(wanted, shipped[0]) == said


def test_a_damaged_file_is_not_used(shipped, tiny, tmp_path):
    wanted = helpful.made_for(settings_of(chosen(*TOUR)), tiny)
    assert misfit({**wanted, "base": "0"}, shipped[0]) == "the base is another"
    shutil.copytree(shipped[0], tmp_path / "copy")
    with (tmp_path / "copy" / ADAPTER_FILE).open("ab") as file:
        file.write(b"0")
    assert misfit(wanted, tmp_path / "copy") == "the file is damaged"
    assert misfit(wanted, tmp_path) == "there is none"


def test_the_one_in_the_package_is_of_the_defaults_and_of_the_built_in_data(tiny):
    """Run ``python -m cai.prepare`` when this fails."""
    record = json.loads((PREPARED / RECORD).read_text())
    wanted = helpful.made_for(settings_of(chosen()), tiny)
    for key in ("lora", "data", "seed", "recipe"):
        assert record[key] == wanted[key], key
    assert sum(path.stat().st_size for path in PREPARED.iterdir()) <= 12e6
