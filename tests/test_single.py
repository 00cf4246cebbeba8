"""A single run is composed once, and is in all else the run that hydra.main would make."""

import sys

import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from cai import __main__ as program
from cai import single, sweep

WORDS = ["model=tiny", "scale=tour", "seed=3", "tracking=off", "stage=helpful", "dry_run=true"]


@pytest.fixture(autouse=True)
def nothing_failed(monkeypatch):
    monkeypatch.setattr(sweep, "failures", [])
    monkeypatch.setattr(sweep, "accepted", [])


def launch(monkeypatch, folder, *words):
    given = [*WORDS, f"outputs={folder.parent}", f"hydra.run.dir={folder}", *words]
    monkeypatch.setattr(sys, "argv", ["cai", *given])
    assert program.main() == 0


def written(folder):
    """Return what Hydra wrote, without the folder's own name."""
    texts = {path.name: path.read_text() for path in sorted((folder / ".hydra").iterdir())}
    return {name: text.replace(str(folder), "FOLDER") for name, text in texts.items()}


def schemas_loaded(monkeypatch):
    """Count compositions: each loads the schema of the config."""
    loaded = []
    right = ConfigStore.load

    def load(self, config_path):
        loaded.append(config_path)
        return right(self, config_path)

    monkeypatch.setattr(ConfigStore, "load", load)
    return lambda: loaded.count("schema.yaml")


def test_a_run_is_composed_once(tmp_path, monkeypatch):
    count = schemas_loaded(monkeypatch)
    launch(monkeypatch, tmp_path / "run")
    assert count() == 1
    monkeypatch.setattr(program, "run_once", lambda task, words: False)
    launch(monkeypatch, tmp_path / "again")
    assert count() == 1 + 2


@pytest.mark.parametrize("words", [[], ["hydra.mode=RUN"], ["+trainer.max_time=00:01:00:00"]])
def test_it_leaves_what_hydra_main_would_leave(words, tmp_path, monkeypatch):
    launch(monkeypatch, tmp_path / "run", *words)
    monkeypatch.setattr(program, "run_once", lambda task, words: False)
    launch(monkeypatch, tmp_path / "other", *words)
    assert written(tmp_path / "run") == written(tmp_path / "other")
    names = [{path.name for path in (tmp_path / run).iterdir()} for run in ("run", "other")]
    assert names[0] == names[1]


def test_the_job_has_hydras_config_and_its_own_without_it(tmp_path):
    seen = []

    def task(config):
        seen.append((HydraConfig.get().runtime.output_dir, "hydra" in config, config.seed))

    assert single.run_once(task, [*WORDS, f"hydra.run.dir={tmp_path / 'run'}"])
    assert seen == [(str(tmp_path / "run"), False, 3)]


def test_what_a_job_raises_is_raised(tmp_path):
    def task(config):
        raise ZeroDivisionError("in the job")

    with pytest.raises(ZeroDivisionError, match="in the job"):
        single.run_once(task, [*WORDS, f"hydra.run.dir={tmp_path / 'run'}"])


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "seed=0,1"],
        ["--cfg", "job"],
        ["+sweep=kl"],
        ["hydra.mode=MULTIRUN"],
        ["seed=0,1"],
        ["seed=nothing"],
        ["stage=nothing"],
        ["=="],
        ["hydra.verbose=true"],
        ["+hydra.callbacks.mine._target_=hydra.experimental.callback.Callback"],
        ["~hydra.callbacks.sweep"],
    ],
    ids=" ".join,
)
def test_everything_else_is_left_to_hydra_main(words, tmp_path):
    outputs = tmp_path / "outputs"
    ran = []
    assert not single.run_once(ran.append, [*WORDS, f"outputs={outputs}", *words])
    assert not ran
    assert not outputs.exists()


def test_callbacks_of_others_are_heard(tmp_path, monkeypatch):
    target = "tests_of_single.Mine"
    heard = []
    module = type(sys)("tests_of_single")

    class Mine(sweep.Callback):
        def on_job_start(self, config, **kwargs):
            heard.append(OmegaConf.select(config, "seed"))

    module.Mine = Mine
    monkeypatch.setitem(sys.modules, "tests_of_single", module)
    launch(monkeypatch, tmp_path / "run", f"+hydra.callbacks.mine._target_={target}")
    assert heard == [3]
