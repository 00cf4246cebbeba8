"""data=files: sets of one's own beside the built-in ones, and what is refused, in a sentence."""

import pytest
from data_files import PAIRS, lines_of
from hydra import compose, initialize_config_dir

from cai.composition import CONF, typed
from cai.config.nodes import BUILTIN
from cai.data.files import read_files, source_of
from cai.data.folder import read_folder
from cai.data.hub import HubSet
from cai.data.sources import load_corpus
from cai.errors import UserError
from cai.evaluation.systems import held_out_prompts
from cai.sentences import explain

MANY = 60
"""Enough rows for every side of a split to have some."""


def config(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return typed(compose("config", overrides=["model=tiny", "tracking=off", *overrides])).data


def put(path, content):
    path.write_bytes(content if isinstance(content, bytes) else lines_of(content))
    return path


# Corpora


def whole(tmp_path, **content):
    """Name files of sets on the command line."""
    return ["data=files", *(f"data.files.{name}.path={put(tmp_path / f'{name}.jsonl', rows)}"
                            for name, rows in content.items())]  # fmt: skip


def test_sets_from_files_stand_beside_built_in_ones(tmp_path, caplog):
    caplog.set_level("INFO")
    rows = [{"prompt": f"Number {n}?"} for n in range(MANY)]
    pairs = [PAIRS["texts"](n) for n in range(MANY * 2)]
    corpus = load_corpus(
        config(
            *whole(tmp_path, red_team=[*rows, rows[0]], harmless_pairs=pairs, helpful_pairs=pairs)
        )
    )
    assert sum(map(len, corpus.red_team)) == MANY  # one of each
    assert {p.kind for p in corpus.red_team.train} == {"red_team"}
    for axis, found, kind in zip(corpus.judge, (corpus.harmless_pairs, corpus.helpful_pairs),
                                 ("harmless", "helpful")):  # fmt: skip
        assert sum(map(len, axis)) + sum(map(len, found)) == MANY * 2
        assert {pair.source for pair in found.train} == {kind}
    builtin = read_folder()
    assert sum(map(len, corpus.borderline)) == len(builtin.borderline)
    assert "data.files has no borderline, helpful, demonstrations, judgements" in caplog.text


def test_a_prompt_with_two_good_replies_is_evaluated_once(tmp_path):
    rows = [{"prompt": f"Number {n}?", "response": f"{m}."} for n in range(MANY) for m in (1, 2)]
    corpus = load_corpus(config(*whole(tmp_path, helpful=rows)))
    assert sum(map(len, corpus.helpful)) == 2 * MANY
    held_out = held_out_prompts(MANY, corpus)["helpful"]
    assert len({prompt.id for prompt in held_out}) == len(held_out) > 2


def test_judgements_of_ones_own_teach_the_judge(tmp_path):
    pairs = [PAIRS["texts"](n) for n in range(MANY)]
    own = [{"prompt": f"Judge {n}?", "chosen": "a", "rejected": "b"} for n in range(MANY)]
    corpus = load_corpus(config(*whole(tmp_path, harmless_pairs=pairs, judgements=own)))
    assert {c.source for c in corpus.judge.harmlessness.train} == {"harmless", "judgement"}


def test_the_built_in_files_are_files_like_any_other():
    names = {"helpful_pairs": "comparisons", "red_team": "red_team", "borderline": "borderline",
             "helpful": "helpful", "demonstrations": "demonstrations",
             "judgements": "judgements"}  # fmt: skip
    paths = [f"data.files.{name}.path={BUILTIN}/{file}.jsonl" for name, file in names.items()]
    found, builtin = read_files(config("data=files", *paths)), read_folder()
    for name in names:
        own, theirs = getattr(found, name), getattr(builtin, name)
        assert [getattr(r, "prompt", r).conversation for r in own] == [
            getattr(r, "prompt", r).conversation for r in theirs
        ]
        first = getattr(own[0], "prompt", own[0]).id
        assert first == f"{name}-{getattr(theirs[0], 'prompt', theirs[0]).id}"


def test_an_empty_file_and_an_empty_side_are_said(tmp_path):
    with pytest.raises(UserError, match=r"data\.files\.borderline\.path=\S+ has no rows"):
        load_corpus(config(*whole(tmp_path, borderline=[])))
    with pytest.raises(UserError, match="data=files has no red_team records in its"):
        load_corpus(config(*whole(tmp_path, red_team=[{"prompt": "One?"}])))


def test_rules_hold_by_the_key(tmp_path):
    rows = [{"prompt": f"Number {n}?"} for n in range(MANY)]
    keys = whole(tmp_path, red_team=[*rows, {"promt": "a"}])
    with pytest.raises(UserError, match=rf"red_team\.jsonl:{MANY + 1} is malformed"):
        load_corpus(config(*keys))
    corpus = load_corpus(config(*keys, "data.bad_rows=skip"))
    assert sum(map(len, corpus.red_team)) == MANY


CONTRADICTIONS = {
    "no file": (["data=files"], "data=files names no file"),
    "not read": (
        ["data=files", "data.files.helpful.path=a", "data.source=builtin"],
        "data.files is read where data.source is files",
    ),
    "two places": (
        ["data=files", "data.files.helpful.path=a", "data.files.helpful.hub=b/c"],
        "data.files.helpful.path and data.files.helpful.hub are both given",
    ),
    "no commit": (
        ["data=files", "data.files.helpful.hub=b/c"],
        "needs data.files.helpful.revision",
    ),
    "no data set": (
        ["data=files", "data.files.helpful.path=b", "data.files.helpful.subset=x"],
        "are of a data set: give data.files.helpful.hub",
    ),
    "a folder": (["data=files", "data.files.helpful.path=a", "data.folder=b"], "data.folder and"),
    "a misspelt column": (
        ["data=files", "data.files.helpful.columns.promt=a"],
        "did you mean data.files.helpful.columns.prompt",
    ),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_settings_that_contradict_each_other(name):
    overrides, fault = CONTRADICTIONS[name]
    with pytest.raises(Exception) as caught:  # Hydra's own, in one sentence below
        config(*overrides)
    assert fault in explain(caught.value)


# A hub


def hub_config(*more):
    node = "data.files.helpful_pairs"
    return config("data=files", f"{node}.hub=owner/name", f"{node}.revision=abc", *more)


def test_a_data_set_of_a_hub_is_read_at_its_commit(monkeypatch):
    import datasets

    asked_for = []

    def load(path, **options):
        asked_for.append((path, options))
        rows = [{**PAIRS["messages"](n), "picture": b"\xff"} for n in range(MANY)]
        return datasets.Dataset.from_list(rows)

    monkeypatch.setattr(datasets, "load_dataset", load)
    node = "data.files.helpful_pairs"
    chosen = hub_config(f"{node}.subset=small", f"{node}.split=test", f"{node}.columns.id=nr")
    with pytest.raises(UserError, match=r"columns\.id='nr' is no column of owner/name/small"):
        read_files(chosen)
    chosen.files.helpful_pairs.columns.id = None
    assert len(read_files(chosen).helpful_pairs) == MANY
    options = {"name": "small", "revision": "abc", "split": "test"}
    assert asked_for == [("owner/name", options)] * 2


@pytest.mark.parametrize(
    "error", [ConnectionError("x" * 10**6), ValueError("no split"), OSError(5)]
)
def test_a_data_set_that_can_not_be_had_is_said(monkeypatch, error):
    import datasets

    def load(path, **options):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(
        UserError, match=r"owner/name at revision abc could not be loaded"
    ) as caught:
        read_files(hub_config())
    assert len(str(caught.value)) < 300


def test_the_settings_of_a_set_become_a_source():
    file = hub_config().files.helpful_pairs
    source = source_of("helpful_pairs", file)
    assert source.hub == HubSet("owner/name", "abc", "train")
    assert source.key == "data.files.helpful_pairs.hub"
