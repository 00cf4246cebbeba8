"""Rows beyond the context: counted, named, and left out, refused or shortened before a stage."""

import logging

import pytest

from cai.config import DataConfig, DataSource, TooLong
from cai.data.records import Comparison, Example, Prompt
from cai.data.sources import load_corpus
from cai.dialogue import assistant, human
from cai.errors import UserError
from cai.lm.chat import ChatFormat
from cai.sampling.fitting import Fitting
from cai.sampling.prompts import EncodedPrompts


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


def length(fitting, row):
    return len(fitting.chat.unbounded_prompt(row.conversation))


def test_rows_are_left_out_counted_and_named(fitting, caplog):
    with caplog.at_level(logging.WARNING):
        kept = fitting(TooLong.skip).fit([SHORT, LONG, SHORT], 10, "red_team")
    assert kept == [SHORT, SHORT]
    assert "revise: 1 of 3 red_team rows do not fit model.context=120" in caplog.text
    assert "first long" in caplog.text


def test_an_error_names_the_first(fitting):
    with pytest.raises(UserError, match=r"long of red_team does not fit model\.context=120"):
        fitting(TooLong.error).fit([SHORT, LONG], 10, "red_team")


def test_the_oldest_turns_go_first_and_the_rest_fits_by_a_token(fitting):
    cut = fitting(TooLong.cut_left)
    [row] = cut.fit([LONG], 10, "red_team")
    assert row == prompt("long", "And now?")
    wide = prompt("wide", "x" * 300 + " the end")
    [row] = cut.fit([wide], 10, "red_team")
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
        skip.fit([example], 0, "helpful")


def test_what_surely_fits_is_never_encoded(fitting, monkeypatch):
    skip = fitting(TooLong.skip, context=4000)
    assert skip.fits(SHORT, 0)  # counts what stands around a prompt, once
    monkeypatch.setattr(ChatFormat, "unbounded_prompt", lambda *args: pytest.fail("encoded"))
    assert skip.fits(LONG, 100)


@pytest.mark.parametrize("text", ["Hi", "\u00e9\u00df\u6f22" * 9, "<|im_end|>" * 3, " \n\n  x"])
def test_no_more_tokens_than_counted(fitting, text):
    row = prompt("x", text, text, text)
    for context in range(20, 400):
        skip = fitting(TooLong.skip, context)
        assert skip.fits(row, 0) == (length(skip, row) < context)


def test_a_corpus_that_fits_stays_as_it_is(tiny):
    corpus = load_corpus(DataConfig(DataSource.builtin, None, None))
    assert Fitting(tiny.chat, TooLong.skip, "rl").corpus(corpus, 64) == corpus


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
