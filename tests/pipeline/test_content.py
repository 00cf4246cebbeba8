"""What lies at a path that a setting names is part of the fingerprint; no path is forgotten."""

import os
import re
from dataclasses import dataclass, field, fields, is_dataclass
from typing import get_args, get_origin, get_type_hints

import pytest
from hydra import compose, initialize_config_dir

from cai import files
from cai.composition import CONF, schema, typed
from cai.config.content import _CONTENT, Kind, contents, located, reads_file, reads_folder
from cai.config.nodes import BUILTIN
from cai.contracts.table import stages
from cai.errors import UserError
from cai.lm import load
from cai.lm.tiny import tiny_tokenizer
from cai.pipeline.plan import digests, plan
from cai.pipeline.stage import HOW, field_names
from cai.pipeline.store import Store

# The schema


def keys_of(kind, prefix="", listed=False):
    """Yield every key of a schema with its field, its type, and whether a list is around it."""
    hints = get_type_hints(kind)
    for item in fields(kind):
        hint, key = hints[item.name], prefix + item.name
        yield key, item, hint, listed
        for inner in (hint, *get_args(hint)):
            if is_dataclass(inner):
                yield from keys_of(inner, f"{key}.", listed or get_origin(hint) in {list, dict})


KEYS = list(keys_of(schema()))
DECLARED = {key: item.metadata[_CONTENT][0] for key, item, hint, _ in KEYS
            if _CONTENT in item.metadata and hint is not bool}  # fmt: skip
"""Keys that hold a path, by what lies there; a switch may stand for a path that is fixed."""
PATH = re.compile(r"(^|_)(path|file|folder|dir|directory)s?(_|$)")
NOT_BY_THEIR_NAME = {"pm.pretrain", "evaluate.opinions.human_choices",
                     "evaluate.harmfulness.ratings", "judge.people",
                     "judge.models.harmlessness"}  # fmt: skip


def test_every_text_that_is_named_like_a_path_declares_what_lies_there():
    named = {
        key
        for key, _, hint, _ in KEYS
        if PATH.search(key.rpartition(".")[2])
        and str in (hint, *get_args(hint))
        and key.split(".")[0] not in HOW
    }
    assert {"model.path", "constitution.folder", "data.folder"} <= named
    assert named - set(DECLARED) == set(), "declare these with reads_file or reads_folder"
    assert set(DECLARED) - named == NOT_BY_THEIR_NAME


def test_a_declaration_stands_where_it_is_found_and_hashed():
    """Not within a list, where nobody looks, nor in a node that is hashed by no stage."""
    listed = {key for key, _, _, within in KEYS if within}
    assert "constitution.revision.id" in listed
    assert not listed & set(DECLARED)
    hashed = {node for stage in stages().values() for node in field_names(stage.settings)}
    assert {key.split(".")[0] for key in DECLARED} <= hashed - HOW


# Keys of results


def config(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return typed(compose("config", overrides=["model=tiny", "tracking=off", *overrides]))


def planned(folder, chosen):
    """Return the steps of an evaluation by the name of their stage."""
    return {step.stage.name: step for step in plan(chosen, Store(folder / "store"), stages())}


def changed(before, after):
    return {name for name in before if before[name].key != after[name].key}


def reads(step, key):
    return key.split(".")[0] in field_names(step.stage.settings)


def depends_on(steps, key):
    """Return the stages that are hashed on the node of a key, and all that come after one."""
    found = set()
    for name, step in steps.items():  # upstream first
        if reads(step, key) or found.intersection(step.inputs):
            found.add(name)
    return found


NEEDED = {
    "model.path": ["model=folder"],
    "feedback.labeller.path": ["model@feedback.labeller=folder"],
    "pm.base.path": ["model@pm.base=folder"],
    "judge.models.harmlessness": ["judge=folder"],
    **{key: ["data=files"] for key in DECLARED if key.startswith("data.files.")},
}
"""What else must be set for a path to be read."""


@pytest.fixture
def place(tmp_path):
    """Return a function that makes what a key points to, and the file of it that is edited."""

    def make(kind):
        path = tmp_path / "given"
        if kind is Kind.file:
            path.write_text("one")
            return path, path
        (path / "deep").mkdir(parents=True)
        (path / "other").write_text("other")
        (path / "deep" / "file").write_text("one")
        (path / "config.json").write_text("{}")  # as far as a plan looks, it is a model, too
        tiny_tokenizer().save_pretrained(path)
        return path, path / "deep" / "file"

    return make


@pytest.mark.parametrize("key", DECLARED)
def test_another_content_is_another_result_of_all_that_read_it(tmp_path, place, key):
    path, edited = place(DECLARED[key])
    chosen = config(*NEEDED.get(key, []), f"{key}={path}")
    before = planned(tmp_path, chosen)
    os.utime(edited, ns=(1, 1))  # touched, not changed
    assert changed(before, planned(tmp_path, chosen)) == set()
    edited.write_text("two")
    after = planned(tmp_path, chosen)
    assert changed(before, after) == depends_on(before, key) != set()
    for name, step in after.items():
        assert (key in step.recipe["content"]) == reads(step, key), name
        assert step.recipe["settings"] == before[name].recipe["settings"]


@pytest.mark.parametrize("key", [key for key, kind in DECLARED.items() if kind is Kind.folder])
def test_another_name_in_a_folder_is_another_result(tmp_path, place, key):
    path, edited = place(Kind.folder)
    chosen = config(*NEEDED.get(key, []), f"{key}={path}")
    before = planned(tmp_path, chosen)
    edited.rename(edited.with_name("renamed"))
    assert changed(before, planned(tmp_path, chosen)) == depends_on(before, key)


@pytest.mark.parametrize("key", DECLARED)
def test_a_path_with_nothing_there_is_said_with_its_key(tmp_path, key):
    nothing = tmp_path / "nothing"
    chosen = config(*NEEDED.get(key, []), f"{key}={nothing}")
    with pytest.raises(UserError, match=rf"^{re.escape(key)}={nothing} "):
        planned(tmp_path, chosen)


def test_the_same_content_at_another_place_is_the_same_content(tmp_path, place):
    path, _ = place(Kind.file)
    copy = tmp_path / "copy"
    copy.write_bytes(path.read_bytes())
    configs = (config(f"pm.pretrain={p}") for p in (path, copy))
    one, two = (planned(tmp_path, chosen)["pm"].recipe for chosen in configs)
    assert one["content"] == two["content"]
    assert one["settings"] != two["settings"]


@pytest.mark.parametrize("options", [(), ("model.dialect=text",)])
def test_equal_weights_that_are_told_otherwise_give_other_results(tmp_path, monkeypatch, options):
    """A template may come from elsewhere than the settings and files that a stage is hashed on."""
    before = planned(tmp_path, config(*options))
    told = tiny_tokenizer()
    told.chat_template = told.chat_template.replace("<|im_start|>", "<|im_start|>the ")
    monkeypatch.setattr(load, "tiny_tokenizer", lambda: told)
    load._chats.clear()
    after = planned(tmp_path, config(*options))
    load._chats.clear()
    assert changed(before, after) == (set() if options else set(before))
    for name, step in after.items():
        assert set(step.recipe["content"]) >= {"model.template"}
        assert step.recipe["settings"] == before[name].recipe["settings"]


# Which places


def read_by(stage, *overrides):
    settings = stages()[stage].read(config(f"stage={stage}", *overrides))
    return {
        content.key: content.path
        for name in field_names(settings)
        for content in contents(getattr(settings, name), name)
    }


def test_a_name_on_the_hub_is_no_folder_here(tmp_path):
    hub = ["model=hub", "model.path=owner/name", "model.revision=0"]
    assert "model.path" not in read_by("helpful", *hub)
    (tmp_path / "base").mkdir()
    here = read_by("helpful", "model=folder", f"model.path={tmp_path}/base")
    assert here["model.path"] == tmp_path / "base"


def test_the_data_that_come_with_the_package_count_beside_other_data(tmp_path):
    """Demonstrations and judgements are from there, whatever else is chosen."""
    assert list(read_by("revise").values()) == [BUILTIN]
    own = read_by("revise", f"data.folder={tmp_path}")
    assert list(own.values()) == [tmp_path, BUILTIN]


def test_a_file_is_read_once_for_all_stages(tmp_path, monkeypatch):
    """Eight stages are hashed on the data; each file of it is opened by one of them."""
    monkeypatch.setattr(files, "_known", {})
    opened, original = [], type(tmp_path).open

    def count(path, *arguments, **named):
        if BUILTIN in path.parents:
            opened.append(path)
        return original(path, *arguments, **named)

    monkeypatch.setattr(type(tmp_path), "open", count)
    chosen = config()
    for _ in range(2):
        assert sum(reads(step, "data") for step in planned(tmp_path, chosen).values()) == 8
    assert sorted(opened) == sorted(path for path in BUILTIN.rglob("*") if path.is_file())


def test_paths_are_found_in_nested_nodes_and_nowhere_else():
    @dataclass
    class Inner:
        a: str | None = reads_file(None)

    @dataclass
    class Outer:
        b: str = reads_folder("x")
        inner: Inner = field(default_factory=lambda: Inner("y"))
        absent: Inner | None = None
        other: str = "z"

    found = [(c.key, str(c.path), c.kind) for c in contents(Outer(), "node")]
    assert found == [("node.b", "x", Kind.folder), ("node.inner.a", "y", Kind.file)]
    assert list(contents(Outer("", Inner(None)), "node")) == []
    assert list(contents(3, "seed")) == list(contents(Outer, "node")) == []


def test_several_places_of_one_setting_have_a_digest_each(tmp_path):
    @dataclass
    class Node:
        folder: str | None = reads_folder(None, where=lambda n: [n.folder, tmp_path / "always"])

    @dataclass
    class Settings:
        node: Node

    for name in ("own", "always"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text(name)
    both = digests(Settings(Node(str(tmp_path / "own"))))
    assert list(both) == ["node.folder", "node.folder.1"]
    assert digests(Settings(Node(None))) == {"node.folder.1": both["node.folder.1"]}


def test_a_path_in_a_package_is_where_that_is_installed():
    assert located("pkg://cai/data/builtin") == BUILTIN
    assert located("some/folder").parts == ("some", "folder")
    with pytest.raises(UserError, match=r"^pkg://no_such/x is in no installed package: pip"):
        located("pkg://no_such/x")
