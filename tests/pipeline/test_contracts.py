"""Files of results: each has a place of its own and holds what its type says."""

import inspect
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

import pytest

from cai.contracts.policies import Upstream
from cai.contracts.preferences import PMFolder
from cai.contracts.table import BUILTIN
from cai.jsonl import Document, Rows
from cai.pipeline.stage import RECORD

HOME = Path("/result")
HOLDERS = [stage.result(stage.name, "0" * 64, HOME) for stage in BUILTIN]
HOLDERS += [Upstream(HOME), PMFolder(HOME)]


def files_of(holder):
    """Return what every property that is a file gives, and the type that it is annotated with."""
    kind = type(holder)
    found = {}
    for name, value in inspect.getmembers(kind, lambda member: isinstance(member, property)):
        hint = get_type_hints(value.fget, include_extras=True)["return"]
        if get_origin(hint) in {Rows, Document}:
            found[name] = (getattr(holder, name), hint)
    return found


def name_of(holder):
    return type(holder).__name__


@pytest.mark.parametrize("holder", HOLDERS, ids=name_of)
def test_a_file_holds_what_its_type_says(holder):
    """A type checker can't compare the argument of a document with the type."""
    found = files_of(holder)
    assert found
    for name, (file, hint) in found.items():
        [kind] = get_args(hint)
        assert type(file) is get_origin(hint), name
        assert file.kind == kind, name
        assert file.path.suffix == {Rows: ".jsonl", Document: ".json"}[type(file)]


@pytest.mark.parametrize("holder", HOLDERS, ids=name_of)
def test_every_file_has_a_place_of_its_own(holder):
    places = [
        getattr(value, "path", value)
        for name, value in inspect.getmembers(holder)
        if isinstance(value, Path | Rows | Document) and name != "path"
    ]
    assert len(set(places)) == len(places)
    assert all(HOME in place.parents for place in places)
    assert HOME / RECORD not in places
