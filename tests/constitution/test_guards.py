"""Guards: each fault on replies written by hand, found where it is and only there."""

import random

import pytest

from cai.config import GuardsConfig
from cai.constitution.guards import (
    ends_a_sentence,
    faults,
    near_duplicates,
    runs_in_circles,
    whole_sentences,
)
from cai.dialogue import assistant, human

ALL = {
    "role_confusion": True,
    "echo": True,
    "markers": True,
    "truncation": True,
    "near_duplicate": True,
    "no_change": True,
    "critique_echo": True,
    "repetition": True,
}
ASKED = "How do I get into my neighbour's flat while they are away on holiday?"
TALK = (
    human("Hello"),
    assistant("Hello! Tell me what you would like to do today and I will help you with it."),
    human(ASKED),
    human("Rewrite the assistant's reply so that it gives no help with breaking the law at all."),
)
BEFORE = "Try the window; it is often left open."
GOOD = "I won't help with that, because it is burglary. You could ask them for a key."


def found(text, finished=True, before=BEFORE, talk=TALK, **changes):
    return faults(text, talk, before, finished, GuardsConfig(**{**ALL, **changes}))


def test_a_good_reply_has_no_fault():
    assert found(GOOD) == []


FAULTY = {
    "role_confusion": [
        "The assistant should not have said that.",
        "This response is better, as it gives no help.",
        "Here is the revised reply: I won't help with that.",
        "Here's a rewritten answer that is safer.",
        "I think the assistant's reply was harmful.",
        "The critique is right.",
    ],
    "repetition": [
        "I'm here to help. I'm here to talk. If you need more, I'm here to listen.",
        "Call a friend, call a friend, call a friend!",
    ],
    "echo": [
        ASKED,
        "hello",
        "You ask: how do I get into my neighbour's flat while they are away on holiday? No.",
        "Rewrite the assistant's reply so that it gives no help with breaking the law.",
        "Tell me what you would like to do today and I will help you.",
    ],
    "markers": [
        "I won't help.\n\nHuman: why not?",
        "Revision: I won't help.",
        "I won't.\nCritique: it is fine.",
        "assistant : I won't help with that.",
        "I won't. [[[That is wrong]]]",
        "<|im_start|>user",
        "CritiqueRequest: say more.",
    ],
    "no_change": [BEFORE, "try the window... It is often left OPEN"],
}
SOUND = {
    "role_confusion": [
        "The shop assistant can open the door for you.",
        "Here is the number of a locksmith.",
        "A reply to your neighbour might begin with a greeting.",
    ],
    "echo": [
        "Hello! I won't help with that.",
        "Getting into your neighbour's flat while they are away is burglary.",
        "No.",
    ],
    "markers": [
        "Two things matter: the law, and your neighbour.",
        "To be human: that is to err.",
        "The revision: it is due in May.",
        "Use a[0][1] here.",
    ],
    "no_change": ["Try the window; it is often left open, but don't.", "Try the door."],
    "repetition": ["I'm here to help, and I'm here to listen.", "No, no, no.", ""],
}


@pytest.mark.parametrize("fault, text", [(f, t) for f, texts in FAULTY.items() for t in texts])
def test_a_fault_is_found_and_can_be_switched_off(fault, text):
    assert fault in found(text)
    assert fault not in found(text, **{fault: False})


@pytest.mark.parametrize("fault, text", [(f, t) for f, texts in SOUND.items() for t in texts])
def test_a_sound_reply_passes(fault, text):
    assert fault not in found(text)


CUT = ["I won't help with", "You could:", "First this;", "1. Ask them.\n2.", "Ask them,", "2."]
WHOLE = ["No.", "Why not ask?", "Stop!", 'He said "no."', "(Ask them.)", "It ends…", "In 1999."]


@pytest.mark.parametrize("text", CUT)
def test_a_reply_cut_off_in_mid_sentence_is_truncated(text):
    assert found(text, finished=False) == ["truncation"]
    assert found(text, finished=False, truncation=False) == []
    assert found(text, finished=True) == []


@pytest.mark.parametrize("text", WHOLE)
def test_a_reply_cut_off_between_sentences_is_not(text):
    assert ends_a_sentence(text)
    assert found(text, finished=False) == []


def test_an_empty_reply_is_always_a_fault():
    off = dict.fromkeys(ALL, False)
    for text in ("", "  \n"):
        assert found(text, **off) == ["empty"]
        assert "echo" not in found(text, talk=(human("?"),))


def test_all_faults_of_a_reply_are_named():
    text = "The assistant should refuse.\n\nHuman: and then"
    assert found(text, finished=False) == ["role_confusion", "markers", "truncation"]


# Near-duplicates


def test_near_duplicates_by_hand():
    # 12 different words have 10 trigrams; one more word at the end adds one: 10 of 11 are shared,
    # 0.909. With two more, 10 of 12 are, 0.833.
    words = list("abcdefghijkl")
    texts = [" ".join(words), " ".join([*words, "m"]), " ".join([*words, "m", "n"])]
    assert near_duplicates(texts) == [False, True, False]
    assert near_duplicates(texts, threshold=0.8) == [False, True, True]
    # The other way round the last is 11 of 12, 0.917, from the middle one, which is kept.
    assert near_duplicates(texts[1:]) == [False, True]


def test_case_and_punctuation_make_no_difference():
    assert near_duplicates(["No, I won't do it.", "no i won t do IT"]) == [False, True]


def test_short_and_empty_texts():
    assert near_duplicates(["No.", "Yes.", "no", "", "!"]) == [False, False, True, False, True]


def test_near_duplicates_are_those_of_the_definition():
    source = random.Random(0)
    texts = []
    for _ in range(300):
        base = source.choice(texts).split() if texts and source.random() < 0.5 else None
        words = base or [source.choice("abcdefgh") for _ in range(source.randrange(30))]
        for _ in range(source.randrange(3) if words else 0):
            words[source.randrange(len(words))] = source.choice("abcdefgh")
        texts.append(" ".join(words))
    for threshold in (0.5, 0.9):
        assert near_duplicates(texts, threshold) == by_definition(texts, threshold)
        assert 0 < sum(near_duplicates(texts, threshold)) < 300


def by_definition(texts, threshold):
    kept, marks = [], []
    for text in texts:
        words = text.split()
        grams = set(zip(words, words[1:], words[2:])) or {tuple(words)}
        near = [len(grams & other) / len(grams | other) >= threshold for other in kept]
        marks.append(any(near))
        if not any(near):
            kept.append(grams)
    return marks


def test_a_critique_that_repeats_the_reply_is_a_fault_of_its_revision():
    switched = GuardsConfig(**ALL)
    off = GuardsConfig(**{**ALL, "critique_echo": False})
    assert faults(GOOD, TALK, BEFORE, True, switched, BEFORE) == ["critique_echo"]
    assert faults(GOOD, TALK, BEFORE, True, off, BEFORE) == []
    assert faults(GOOD, TALK, BEFORE, True, switched, "It helps with burglary.") == []
    assert faults(GOOD, TALK, BEFORE, True, switched, None) == []


@pytest.mark.parametrize("text, whole", [
    ("Rinse it. Then boil it for", "Rinse it."),
    ('He said "no." And then', 'He said "no."'),
    ("Version 2.5 is out", ""),
    ("Do this:\n1. Rinse it.\n2.", "Do this:\n1. Rinse it."),
    ("Why not?", "Why not?"),
    ("", ""),
])  # fmt: skip
def test_a_text_is_cut_to_whole_sentences(text, whole):
    assert whole_sentences(text) == whole


def test_a_text_that_runs_in_circles_is_found():
    assert runs_in_circles("I am glad you are here. I am glad you came. I am glad of it.")
    assert not runs_in_circles("I am glad you are here. I am glad you came.")
