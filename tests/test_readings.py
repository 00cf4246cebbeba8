"""Readings of published replies, kept without their texts, find the replies again."""

import json

import evasiveness_readings as readings
import numpy as np
import pytest
from evasiveness_rows import COMPLIANCE, ENGAGED, STYLE_CODES, style_rows


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_reply_is_named_by_its_text():
    assert readings.fingerprint("Why?", "So.") == readings.fingerprint(" Why?\n", "\nSo. ")
    assert len({readings.fingerprint(*each) for each in (("a", "b"), ("b", "a"), ("a b", ""))}) == 3


def test_no_text_is_kept():
    for row in lines(readings.LABELS):
        assert set(row) == {"reply", "style"} and len(bytes.fromhex(row["reply"])) == 8
        assert row["style"] in STYLE_CODES
    for row in lines(readings.SECOND):
        assert set(row) == {"reader", "reply", "label"} and len(bytes.fromhex(row["reply"])) == 8


def test_every_reading_finds_one_reply_that_is_not_judged(real_data):
    named = [row["reply"] for row in lines(readings.LABELS)]
    assert len(set(named)) == len(named)
    assert len(list(readings.readings(real_data))) == len(named)
    judged = {readings.fingerprint(row.prompt, row.response) for row in style_rows(real_data)}
    assert not judged & set(named)


def test_what_a_style_says_of_refusal(real_data):
    cases = readings.reading_cases(real_data)
    assert {case.source for case in cases} == {
        f"readings/{name}" for name in ("hh-rlhf", "xstest", "chatgpt_refusals", "cai-paper")
    }
    for case in cases:
        if case.source.endswith(("xstest", "chatgpt_refusals")):
            assert case.refusal == -1  # people have labelled these
        elif case.style == COMPLIANCE:
            assert case.refusal == 0
    assert {case.refusal for case in cases if case.style == ENGAGED} == {-1, 1}


@pytest.mark.parametrize("reader", ["a", "b"])
def test_readers_agree_with_most_labels(real_data, reader):
    second = readings.second_styles(real_data, reader)
    assert len(second.labels) == len(second.found) == 288
    assert 0.8 < np.mean(np.equal(second.labels, second.found)) < 0.95


def test_the_reader_of_refusals_agrees_with_most_labels(real_data):
    second = readings.second_refusals(real_data)
    assert len(second.labels) == 400
    assert 0.9 < np.mean(np.equal(second.labels, second.found)) < 1


def test_replies_of_small_systems_judge_where_their_prompts_are_held_out():
    cases = readings.small_cases()
    assert {case.system for case in cases} == {"start", "sl_cai", "rl_cai"}
    held = {case.prompt for case in cases if case.held}
    assert sum(case.held for case in cases) == len(cases) / 2 == 900
    assert not held & {case.prompt for case in cases if not case.held}
    assert all(case.prompt.endswith("\n\nAssistant:") for case in cases)


def test_a_second_reader_of_small_systems_agrees_with_most_labels():
    second = readings.second_small()
    assert len(second.labels) == 225
    assert 0.9 < np.mean(np.equal(second.labels, second.found)) < 1
