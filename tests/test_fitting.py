"""Rows beyond the context: counted, named, and left out, refused or shortened before a stage."""

import json
import logging
import random

import pytest
from hydra import compose, initialize_config_dir

from cai.composition import CONF, typed
from cai.config import DataConfig, DataSource, TooLong
from cai.contracts.table import stages
from cai.data.records import Comparison, Example, Prompt
from cai.data.sets import Principles
from cai.data.sources import Corpus, load_corpus
from cai.data.splits import Splits
from cai.dialogue import assistant, human
from cai.errors import UserError
from cai.lm.chat import ChatFormat
from cai.pipeline.plan import plan
from cai.pipeline.store import Store
from cai.run import describe, footprints
from cai.sampling.fitting import Fitting
from cai.sampling.prompts import EncodedPrompts
from cai.stages import judge
from cai.training.iteration import draw_prompts


def prompt(name, *texts):
    turns = [(human, assistant)[n % 2](text) for n, text in enumerate(texts)]
    return Prompt(name, "kind", tuple(turns))


@pytest.fixture
def fitting(tiny):
    def make(policy, context=120):
        chat = ChatFormat(tiny.chat.tokenizer, tiny.chat.dialect, context)
        return Fitting(chat, policy, "revise")

    return make


SHORT, LONG = prompt("short", "Hi"), prompt("long", "a" * 100, "b" * 40, "And now?")


def corpus_of(*splits):
    """Put rows into every set of a corpus."""
    sets = ("red_team", "borderline", "helpful", "helpful_pairs", "harmless_pairs", "judgements")
    rest = {"demonstrations": [], "principles": Principles([], []), "judge": None}
    return Corpus(**dict.fromkeys(sets, Splits(*splits)), **rest)


def length(fitting, row):
    return len(fitting.chat.unbounded_prompt(row.conversation))


def test_rows_are_left_out_counted_and_named(fitting, caplog):
    corpus = corpus_of([SHORT, LONG, SHORT], [SHORT], [SHORT])
    with caplog.at_level(logging.WARNING):
        kept = fitting(TooLong.skip).corpus(corpus, {"red_team": 10})
    assert kept.red_team == Splits([SHORT, SHORT], [SHORT], [SHORT])
    assert kept.helpful == corpus.helpful, "nobody asked about it"
    assert caplog.messages == [
        "revise: 1 of 5 red_team rows do not fit model.context=120 with the 10 tokens that "
        "follow, and are left out (data.too_long); first long"
    ]


def test_an_error_names_the_first(fitting):
    with pytest.raises(UserError, match=r"long of red_team does not fit model\.context=120"):
        fitting(TooLong.error).corpus(corpus_of([SHORT, LONG], [], []), {"red_team": 10})


def test_the_oldest_turns_go_first_and_the_rest_fits_by_a_token(fitting):
    cut = fitting(TooLong.cut_left)
    [row] = cut.sift("red_team", Splits([LONG], [], []), 10).rows.train
    assert row == prompt("long", "And now?")
    wide = prompt("wide", "x" * 300 + " the end")
    [row] = cut.sift("red_team", Splits([wide], [], []), 10).rows.train
    assert row.conversation[0].text.endswith("x the end")
    assert length(cut, row) == 120 - 10 - 1


def test_a_reply_counts_and_all_too_long_is_one_sentence(fitting):
    skip = fitting(TooLong.skip)
    example = Example(SHORT, "r" * 100)
    pair = Comparison(SHORT, "r" * 50, "s" * 50, 1.0, "helpful")
    assert not skip.fits(example, 0)
    assert not skip.fits(pair, 0)
    assert skip.fits(Example(SHORT, "r" * 50), 0)
    with pytest.raises(UserError, match="none of 1 helpful rows fits"):
        skip.corpus(corpus_of([SHORT], [example], [example, Example(SHORT, "r")]), {"helpful": 0})


def test_what_surely_fits_is_never_encoded(fitting, monkeypatch):
    skip = fitting(TooLong.skip, context=4000)
    assert skip.fits(SHORT, 0)  # counts what stands around a prompt, once
    monkeypatch.setattr(ChatFormat, "unbounded_prompt", lambda *args: pytest.fail("encoded"))
    assert skip.fits(LONG, 100)


def test_what_people_chose_is_asked_as_far_as_it_fits(tmp_path, caplog):
    rows = [{"prompt": "Hi?", "chosen": "a" * n, "rejected": "b"} for n in (3, 100_000)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = composed("stage=judge", f"judge.people={tmp_path}/a.jsonl")
    papers = judge._of_people(settings)
    assert [[pair.a for pair in paper.comparisons] for paper in papers] == [["aaa"]] * 2
    assert "1 of 2 people's rows do not fit" in caplog.text
    (tmp_path / "a.jsonl").write_text(json.dumps(rows[1]))
    with pytest.raises(UserError, match="none of 1 people's rows fits"):
        judge._of_people(settings)


@pytest.mark.parametrize("text", ["Hi", "\u00e9\u00df\u6f22" * 9, "<|im_end|>" * 3, " \n\n  x"])
def test_no_more_tokens_than_counted(fitting, text):
    row = prompt("x", text, text, text)
    for context in range(20, 400):
        skip = fitting(TooLong.skip, context)
        assert skip.fits(row, 0) == (length(skip, row) < context)


def test_a_corpus_that_fits_stays_as_it_is(tiny):
    corpus = load_corpus(DataConfig(DataSource.builtin, None, None))
    rooms = {"red_team": 64, "helpful_pairs": 0, "judgements": 200}
    assert Fitting(tiny.chat, TooLong.skip, "rl").corpus(corpus, rooms) == corpus


def test_prompts_are_encoded_when_they_are_drawn(tiny, monkeypatch):
    encoded = []
    original = ChatFormat.prompt
    monkeypatch.setattr(
        ChatFormat, "prompt", lambda self, talk: encoded.append(talk) or original(self, talk)
    )
    pool = EncodedPrompts(tiny.chat, [SHORT, prompt("other", "Bye")])
    assert len(pool) == 2
    assert not encoded
    assert pool[1] == original(tiny.chat, prompt("other", "Bye").conversation)
    assert pool[:1] == [original(tiny.chat, SHORT.conversation)]
    assert len(encoded) == 2


def test_drawing_costs_what_is_drawn(tiny, monkeypatch):
    encoded = []
    monkeypatch.setattr(
        ChatFormat, "prompt", lambda self, talk: encoded.append(talk) or [len(encoded)]
    )
    shuffled = []
    original = random.Random.shuffle
    monkeypatch.setattr(
        random.Random,
        "shuffle",
        lambda self, rows: shuffled.append(len(rows)) or original(self, rows),
    )
    pool = EncodedPrompts(tiny.chat, [prompt(str(n), f"Number {n}") for n in range(34_000)])
    for step in range(50):
        draw_prompts([pool], [4], seed=98, step=step)
    assert len(encoded) == len(set(encoded)) == 200
    assert shuffled == [34_000]


def composed(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        given = ("model=tiny", "tracking=off", "hardware=cpu", "scale=tour", *overrides)
        return typed(compose("config", overrides=[*given]))


def test_the_plan_says_what_does_not_fit_before_anything_starts(tmp_path):
    config = composed("model.context=900", "revise.reply_tokens=180")
    steps = plan(config, Store(tmp_path), stages())
    text = describe(steps, config, footprints(steps, config))
    said = [line for line in text.splitlines() if "do not fit" in line]
    assert {line.split(":")[0] for line in said} == {"revise", "feedback"}
    assert all("and are left out (data.too_long); first" in line for line in said), said
    assert not list(tmp_path.glob("*.partial"))
    fits = composed()
    steps = plan(fits, Store(tmp_path), stages())
    assert "do not fit" not in describe(steps, fits, footprints(steps, fits))


def test_the_plan_refuses_where_a_row_that_does_not_fit_is_an_error(tmp_path):
    config = composed("model.context=900", "data.too_long=error")
    steps = plan(config, Store(tmp_path), stages())
    with pytest.raises(UserError, match=r"does not fit model\.context=900"):
        describe(steps, config, footprints(steps, config))
