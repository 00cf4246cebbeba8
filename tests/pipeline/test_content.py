"""What lies at a path that a setting names is part of the fingerprint; no path is forgotten."""

from dataclasses import fields, is_dataclass
from typing import get_args, get_type_hints

import pytest
from hydra import compose, initialize_config_dir

from cai.composition import CONF, schema, typed
from cai.config.content import _CONTENT, Kind, contents
from cai.contracts.table import stages
from cai.pipeline.plan import plan
from cai.pipeline.store import Store

NOT_READ = {"outputs"}
"""Keys that name a place where results go."""
FILES = {
    "pm.pretrain": "pm",
    "evaluate.human_choices": "evaluate",
    "evaluate.ratings": "evaluate",
}
FOLDERS = {"data.folder": "helpful", "evaluate.paper_tests": "evaluate"}


def nodes(kind, prefix=""):
    """Yield every field of the schema with its dotted key, and its type."""
    hints = get_type_hints(kind)
    for item in fields(kind):
        hint = hints[item.name]
        inner = next((a for a in (hint, *get_args(hint)) if is_dataclass(a)), None)
        if inner is None:
            yield prefix + item.name, item, hint
        else:
            yield from nodes(inner, f"{prefix}{item.name}.")


DECLARED = {key: item.metadata[_CONTENT][0] for key, item, _ in nodes(schema())
            if _CONTENT in item.metadata}  # fmt: skip


def test_every_key_that_names_a_path_declares_what_lies_there():
    """By its name, or by what its comment in conf/ says."""
    words = ("path", "file", "folder", "pretrain", "ratings", "choices", "paper_tests")
    named = {
        key
        for key, _, hint in nodes(schema())
        if any(word in key.split(".")[-1] for word in words) and str in (hint, *get_args(hint))
    }
    assert named - NOT_READ == set(DECLARED)
    assert set(FILES) == {key for key, kind in DECLARED.items() if kind is Kind.file}


def keys(store, *overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        chosen = typed(compose("config", overrides=["model=tiny", "tracking=off", *overrides]))
    return {step.stage.name: step.key for step in plan(chosen, store, stages())}


@pytest.mark.parametrize("key", FILES)
def test_another_content_of_a_file_is_another_result(tmp_path, key):
    path, store = tmp_path / "x.jsonl", Store(tmp_path / "store")
    path.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    before = keys(store, f"{key}={path}")
    assert keys(store, f"{key}={path}") == before
    path.write_text('{"prompt": "a", "chosen": "b", "rejected": "other"}\n')
    assert keys(store, f"{key}={path}")[FILES[key]] != before[FILES[key]]


@pytest.mark.parametrize("key", FOLDERS)
def test_another_content_of_a_folder_is_another_result(tmp_path, key):
    folder, store = tmp_path / "x", Store(tmp_path / "store")
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.jsonl").write_text("1")
    before = keys(store, f"{key}={folder}")
    (folder / "deep" / "a.jsonl").write_text("22")
    assert keys(store, f"{key}={folder}")[FOLDERS[key]] != before[FOLDERS[key]]
    (folder / "deep" / "a.jsonl").rename(folder / "deep" / "b.jsonl")
    after = keys(store, f"{key}={folder}")
    assert after[FOLDERS[key]] != before[FOLDERS[key]]


def test_contents_are_found_in_nested_nodes():
    from dataclasses import dataclass, field

    from cai.config.content import reads_file, reads_folder

    @dataclass
    class Inner:
        a: str | None = reads_file(None)

    @dataclass
    class Outer:
        b: str = reads_folder("x")
        inner: Inner = field(default_factory=lambda: Inner("y"))
        other: str = "z"

    found = [(c.key, str(c.path), c.kind) for c in contents(Outer(), "node")]
    assert found == [("node.b", "x", Kind.folder), ("node.inner.a", "y", Kind.file)]
    assert list(contents(3, "seed")) == []
