"""What ships: taken where everything matches, made afresh elsewhere, and made for what is here."""

import json
import logging
import shutil

import pytest
import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file
from tiny import randomise

from cai.composition import CONF, typed
from cai.config import ComparisonPrinciple, HelpfulConfig
from cai.config.nodes import PREPARED
from cai.constitution.principles import load_constitution
from cai.contracts.assistants import HelpfulAssistant, HelpfulSettings, NoInputs
from cai.contracts.table import stages
from cai.data.records import Comparison, Prompt
from cai.data.sources import load_corpus
from cai.dialogue import human
from cai.judging import readout
from cai.labelling import probe
from cai.labelling.answers import FeedbackModel
from cai.lm.embedded import SHA256, cache_folder
from cai.lm.language_model import ADAPTER_FILE
from cai.lm.load import load_model
from cai.lm.prepared import (
    RECORD,
    base_fingerprint,
    digest_of,
    misfit,
    ship,
    taken,
    weights_fingerprint,
)
from cai.pipeline.stage import Job
from cai.results.common import AXES
from cai.stages import feedback, helpful
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
    weights = {key: value.clone() for key, value in model.adapter_state("other").items()}
    low = {key: value.to(torch.bfloat16) for key, value in weights.items()}
    ship(low, helpful.made_for(settings_of(config), model), folder)
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


# Directions


@pytest.fixture
def fits(monkeypatch):
    """Count how often a direction is fitted."""
    seen = []
    for module in (readout, probe):

        def counting(gaps, shrinkage, inner=module.fit_direction):
            seen.append(len(gaps))
            return inner(gaps, shrinkage)

        monkeypatch.setattr(module, "fit_direction", counting)
    return seen


def pairs(n):
    return [
        Comparison(Prompt(f"p{i}", "k", (human(f"Question {i}?"),)), "good", f"bad {i}", 1.0, "x")
        for i in range(n)
    ]


def test_a_direction_of_the_judge_is_taken_for_its_own_comparisons_alone(
    monkeypatch, tiny, tmp_path, fits
):
    monkeypatch.setattr(readout, "PREPARED", tmp_path)
    made = readout.direction_of(tiny, "helpfulness", pairs(6), 1000)
    assert fits
    record = {"base": base_fingerprint(tiny), **readout.made_for(tiny, pairs(6))}
    ship(made.state, record, tmp_path / "helpfulness", readout.FILE)
    fits.clear()
    again = readout.direction_of(tiny, "helpfulness", pairs(6), 1000)
    assert not fits
    assert again.offset == made.offset
    assert (again.weights == made.weights).all()
    readout.direction_of(tiny, "harmlessness", pairs(6), 1000)
    assert fits, "the other axis does not ship"
    fits.clear()
    readout.direction_of(tiny, "helpfulness", pairs(5), 1000)
    assert fits, "these are other comparisons"
    fits.clear()
    ship(made.state, {**record, "base": "0"}, tmp_path / "helpfulness", readout.FILE)
    readout.direction_of(tiny, "helpfulness", pairs(6), 1000)
    assert fits, "this is another base"


def test_a_damaged_direction_is_said_and_made_afresh(monkeypatch, tiny, tmp_path, fits, caplog):
    monkeypatch.setattr(readout, "PREPARED", tmp_path)
    made = readout.direction_of(tiny, "helpfulness", pairs(6), 1000)
    record = {"base": base_fingerprint(tiny), **readout.made_for(tiny, pairs(6))}
    ship(made.state, record, tmp_path / "helpfulness", readout.FILE)
    with (tmp_path / "helpfulness" / readout.FILE).open("ab") as file:
        file.write(b"0")
    fits.clear()
    assert readout.direction_of(tiny, "helpfulness", pairs(6), 1000).offset == made.offset
    assert fits
    assert "is damaged" in caplog.text
    (tmp_path / "helpfulness" / readout.FILE).unlink()
    assert misfit(record, tmp_path / "helpfulness", readout.FILE) == "there is none"


def test_a_direction_of_the_labeller_is_that_of_one_assistant(monkeypatch, tmp_path, fits):
    config = chosen(*TOUR)
    model = load_model(config.model, config.hardware)
    for seed, name in enumerate(("a", "b")):
        model.add_adapter(name, seed)
        randomise(model, name, seed=seed, std=0.1)
    monkeypatch.setattr(probe, "PREPARED", tmp_path / "probe")
    rules = [ComparisonPrinciple("one", "Choose the kinder one."),
             ComparisonPrinciple("two", "Choose the truer one.")]  # fmt: skip

    def made(adapter="a", rules=rules, n=4):
        fits.clear()
        return probe.Probe(FeedbackModel(model, adapter), rules, pairs(n))

    first = made()
    assert fits == [4]
    state = {"direction": torch.from_numpy(first.direction)}
    record = {"base": base_fingerprint(model), **first.made}
    ship(state, record, probe.PREPARED, probe.FILE)
    assert (made().direction == first.direction).all()
    assert not fits
    for other in ({"adapter": "b"}, {"adapter": None}, {"rules": rules[:1]}, {"n": 3}):
        made(**other)
        assert fits, other


def test_the_directions_in_the_package_are_of_the_defaults_and_of_the_built_in_data():
    """Run ``python -m cai.prepare judge labels`` when this fails."""
    config = chosen("stage=evaluate")
    corpus = load_corpus(config.data)
    for axis in AXES:
        record = json.loads((readout.PREPARED / axis / RECORD).read_text())
        learnt = getattr(corpus.judge, axis).train
        assert record["comparisons"] == digest_of(c.texts() for c in learnt)
        assert (record["shrinkages"], record["folds"]) == ([*readout.SHRINKAGES], readout.FOLDS)
        assert record["recipe"] == readout.RECIPE
        assert of_the_assistant(record)
    record = json.loads((probe.PREPARED / RECORD).read_text())
    assert record["assistant"] == weights_fingerprint(load_file(PREPARED / ADAPTER_FILE))
    rules = load_constitution(config.constitution).comparison
    asked = probe.questions(feedback.shown(corpus).judgements, rules)
    assert record["comparisons"] == digest_of(map(probe.read_of, asked))
    assert (record["recipe"], record["shrinkage"]) == (probe.RECIPE, probe.SHRINKAGE)
    assert of_the_assistant(record)


def of_the_assistant(record):
    """Tell whether something was made on the base and with the template of the assistant."""
    assistant = json.loads((PREPARED / RECORD).read_text())
    return all(record[key] == assistant[key] for key in ("base", "prompt"))


def test_the_directions_in_the_package_are_taken_for_the_default_model(hardware):
    if not (cache_folder() / f"SmolLM2-135M-Instruct-{SHA256[:12]}" / "complete").exists():
        pytest.skip("SmolLM2-135M-Instruct is not in the cache")
    config = chosen("stage=evaluate")
    model = load_model(config.model, hardware)
    corpus = load_corpus(config.data)
    for axis in AXES:
        made = readout.made_for(model, getattr(corpus.judge, axis).train)
        assert taken(model, made, readout.PREPARED / axis, readout.FILE)
    model.add_adapter("shipped", 0, PREPARED)
    known = feedback.shown(feedback.fitting_corpus(stages()["feedback"].read(config))).judgements
    rules = load_constitution(config.constitution).comparison
    found = probe.Probe(FeedbackModel(model, "shipped"), rules, known)
    assert taken(model, found.made, probe.PREPARED, probe.FILE)
