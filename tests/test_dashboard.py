"""The dashboards: what they show, that W&B's library takes it, and what is said offline."""

import sys

import pytest
import wandb

from cai import dashboard
from cai.composition import CONF
from cai.dashboard import SECTIONS, Kind


def everything():
    return [panel for section in SECTIONS for panel in section.panels]


def test_every_recipe_has_its_bars():
    recipes = {path.stem for path in (CONF / "recipe").glob("*.yaml")}
    assert set(dashboard.POLICIES) == recipes
    for panel in everything():
        if panel.kind is Kind.bar and panel.metrics[0].startswith("evaluate/helpful/"):
            assert {name.split("/")[1] for name in panel.metrics} == {"helpful", "sl_cai", *recipes}


def test_what_was_asked_for_is_shown():
    shown = {name for panel in everything() for name in panel.metrics}
    for name in (
        "rl/score", "rl/kl", "rl/sqrt_kl", "evaluate/rl_cai/evasiveness",
        "evaluate/rl_cai/over_refusal", "evaluate/rl_cai/harmlessness_elo",
        "evaluate/policy/harmlessness_elo", "evaluate/policy/evasiveness",
        "pm/pm_model/harmless/ece", "evaluate/replies", "rl/transcripts",
    ):  # fmt: skip
        assert name in shown


def test_panels_are_whole():
    titles = [panel.title for panel in everything()]
    assert len(set(titles)) == len(titles)
    for panel in everything():
        assert panel.metrics
        assert (panel.x is not None) == (panel.kind in {Kind.line, Kind.scatter})
        assert panel.kind not in {Kind.table, Kind.scatter} or len(panel.metrics) == 1


@pytest.fixture
def library():
    return pytest.importorskip("wandb_workspaces")


def test_wandbs_library_takes_the_workspace(library):
    view = dashboard.workspace("someone", "p")._to_model()
    spec = view.spec.model_dump_json(by_alias=True)
    sections = view.spec.section.panel_bank_config.sections
    assert [section.name for section in sections][: len(SECTIONS)] == [s.name for s in SECTIONS]
    for panel in everything():
        for name in panel.metrics:
            assert told(name) in spec


def told(name):
    """A setting stands in the specification by the path to it."""
    return name if "/" in name else name.rpartition(".")[2]


def test_wandbs_library_takes_the_report(library, monkeypatch):
    from wandb_workspaces.reports.v2 import interface

    project = {"project": {"internalId": "1"}}  # what the server would say
    monkeypatch.setattr(interface, "_get_api", lambda: None)
    monkeypatch.setattr(interface, "execute_graphql", lambda *_: project)
    spec = dashboard.report("someone", "p")._to_model().spec.model_dump_json(by_alias=True)
    for section in SECTIONS:
        assert section.question in spec
    for panel in everything():
        for name in panel.metrics:
            assert told(name) in spec


def test_panels_of_a_section_do_not_overlap(library):
    for section in SECTIONS:
        places = [(p.layout.x, p.layout.y) for p in dashboard.panels_of(section)]
        assert len(set(places)) == len(places)


def said(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["dashboard", "--project", "p"])
    code = dashboard.main()
    out, err = capsys.readouterr()
    assert not out
    assert len(err.splitlines()) == 1
    return code, err


def test_without_the_library_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    code, err = said(monkeypatch, capsys)
    assert code == 1
    assert "pip install 'constitutional-ai[dashboard]'" in err


def test_offline_it_says_how_to_sync(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", sys)
    monkeypatch.setenv("WANDB_MODE", "offline")
    code, err = said(monkeypatch, capsys)
    assert code == 1
    for part in ("wandb login", "wandb sync", "wandb beta leet"):
        assert part in err


def test_a_network_that_fails_is_said_without_a_traceback(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", sys)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(wandb, "login", lambda **_: True)

    def refuse():
        raise wandb.errors.CommError("no route to host.\nmore")

    monkeypatch.setattr(wandb, "Api", refuse)
    code, err = said(monkeypatch, capsys)
    assert code == 1
    assert "W&B did not take the dashboards (no route to host); " in err
