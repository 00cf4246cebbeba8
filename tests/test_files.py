"""Digests are computed once, follow what lies at a path, and files are whole or not there."""

import hashlib
import os
from pathlib import Path

import pytest

from cai import files
from cai.errors import UserError
from cai.files import (
    digest_of_file,
    digest_of_folder,
    read_json,
    replacing,
    sha256_of,
    write_json,
    write_text,
)


@pytest.fixture
def opened(monkeypatch):
    """Count how often each file is opened, by a process that knows no digest yet."""
    monkeypatch.setattr(files, "_known", {})
    names, original = [], Path.open

    def count(path, *arguments, **named):
        names.append(path.name)
        return original(path, *arguments, **named)

    monkeypatch.setattr(Path, "open", count)
    return names


def write(path, text, changed=0):
    """Write a file and say when it was changed, in nanoseconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, ns=(changed, changed))
    return path


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_file_is_read_once(tmp_path, opened):
    path = write(tmp_path / "a.jsonl", "one")
    opened.clear()
    assert [sha256_of(path) for _ in range(3)] == [sha256("one")] * 3
    assert digest_of_file(path, "pm.pretrain") == sha256("one")
    assert sha256_of(tmp_path / "." / "a.jsonl") == sha256("one")
    assert opened == ["a.jsonl"]


def test_a_file_that_changed_is_read_again(tmp_path, opened):
    path = write(tmp_path / "a.jsonl", "one", changed=1)
    assert sha256_of(path) == sha256("one")
    write(path, "two", changed=2)  # as long as before
    assert sha256_of(path) == sha256("two")
    write(path, "three", changed=2)  # another length in the same moment
    assert sha256_of(path) == sha256("three")
    other = write(tmp_path / "b.jsonl", "other", changed=2)  # another file of the same length
    other.replace(path)
    assert sha256_of(path) == sha256("other")
    opened.clear()
    assert sha256_of(path) == sha256("other")
    assert opened == []


def test_a_link_is_digested_as_what_it_points_to(tmp_path, opened):
    one, two = (write(tmp_path / name, name) for name in ("one", "two"))
    link = tmp_path / "link"
    link.symlink_to(one)
    assert sha256_of(link) == sha256("one")
    link.unlink()
    link.symlink_to(two)
    assert sha256_of(link) == sha256("two")


def test_a_folder_is_read_once_and_only_what_changed_again(tmp_path, opened):
    for name in ("a", "b", "deep/c"):
        write(tmp_path / name, name)
    opened.clear()
    before = digest_of_folder(tmp_path, "data.folder")
    assert digest_of_folder(tmp_path, "data.folder") == before
    assert sorted(opened) == ["a", "b", "c"]
    write(tmp_path / "deep/c", "C", changed=1)
    opened.clear()
    assert digest_of_folder(tmp_path, "data.folder") != before
    assert opened == ["c"]


CHANGES = {
    "a content": lambda folder: write(folder / "a", "A"),
    "a name": lambda folder: (folder / "a").rename(folder / "aa"),  # sorted as before
    "a place": lambda folder: (folder / "a").rename(folder / "deep" / "a"),
    "contents in each other's place": lambda folder: (write(folder / "a", "b"),
                                                      write(folder / "b", "a")),
    "one more": lambda folder: write(folder / "more", ""),
    "one less": lambda folder: (folder / "a").unlink(),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_folder_is_its_names_and_contents(tmp_path, monkeypatch, change):
    monkeypatch.setattr(files, "_known", {})
    folder, moved = tmp_path / "data", tmp_path / "moved"
    for name in ("a", "b", "deep/c"):
        write(folder / name, name)
    before = digest_of_folder(folder, "data.folder")
    folder.rename(moved)
    assert digest_of_folder(moved, "data.folder") == before  # where it lies does not count
    files._known.clear()
    CHANGES[change](moved)
    assert digest_of_folder(moved, "data.folder") != before


def test_what_can_not_be_read_is_said_with_its_setting(tmp_path):
    with pytest.raises(UserError, match=r"^pm\.pretrain=.*none\.jsonl can't be read: No such file"):
        digest_of_file(tmp_path / "none.jsonl", "pm.pretrain")
    with pytest.raises(UserError, match=r"^pm\.pretrain=.* is not a file: give the path of one"):
        digest_of_file(tmp_path, "pm.pretrain")
    file = write(tmp_path / "file", "")
    for path in (tmp_path / "none", file):
        with pytest.raises(UserError, match=rf"^data\.folder={path} does not exist: give the path"):
            digest_of_folder(path, "data.folder")


# Writing


def test_a_file_takes_its_place_when_it_is_whole(tmp_path):
    path = write(tmp_path / "page.txt", "old")
    with replacing(path) as scratch:
        scratch.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["page.txt"]


def test_what_breaks_off_leaves_the_old_file(tmp_path):
    path = write(tmp_path / "page.txt", "old")
    with pytest.raises(KeyError), replacing(path) as scratch:
        scratch.write_text("ne")
        raise KeyError("killed")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_is_sorted_and_its_text_is_text(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"b": [1.5, None], "a": "ä"})
    assert path.read_text(encoding="utf-8") == (
        '{\n  "a": "ä",\n  "b": [\n    1.5,\n    null\n  ]\n}\n'
    )
    assert read_json(path) == {"a": "ä", "b": [1.5, None]}
    write_text(path, "ü\n")
    assert path.read_bytes() == "ü\n".encode()
