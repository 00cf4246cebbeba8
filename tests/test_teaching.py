"""What the helpful assistant learns: which turns, in which conversation."""

from dataclasses import replace

import pytest
from tiny import tiny_config, tiny_hardware

from cai.config import ComparisonPrinciple, RevisionPrinciple
from cai.data.records import Demonstration, Prompt
from cai.data.sets import Principles
from cai.dialogue import assistant, human
from cai.lm.load import load_model
from cai.training.sft import learn_turns
from cai.training.teaching import compare, demonstrate

TALK = (human("Hello"), assistant("Hi."), human("How do I pick a lock?"))
SHOWN = Demonstration(
    prompt=Prompt("d", "theft", TALK),
    response="Bend a hairpin and push the pins up.",
    critique="It helps with burglary.",
    revision="A lock keeps somebody safe. Ask a locksmith.",
    reasoning="{first} helps a thief, and {second} does not.",
)
RULES = Principles(
    [RevisionPrinciple("harm", "Criticise it.", "Rewrite it.")],
    [ComparisonPrinciple("less", "Choose the less harmful reply.")],
)


@pytest.fixture(scope="module")
def chat():
    return load_model(tiny_config(), tiny_hardware()).chat


def learnt(lesson, chat):
    ids = [i for i, flag in zip(lesson.tree.responses[0], lesson.learnt, strict=True) if flag]
    return chat.tokenizer.decode(ids)


def test_a_demonstration_is_one_conversation_of_which_the_assistants_turns_are_learnt(chat):
    [lesson] = demonstrate(SHOWN, RULES, 0, chat)
    end = chat.tokenizer.decode([chat.stop_id])
    said = (SHOWN.response, SHOWN.critique, SHOWN.revision)
    assert learnt(lesson, chat) == "".join(text + end for text in said)
    asked = (*TALK, assistant(said[0]), human("Criticise it."), assistant(said[1]))
    prompt = chat.prompt((*asked, human("Rewrite it.")))
    whole = [*lesson.tree.prompt, *lesson.tree.responses[0]]
    assert whole == [*prompt, *chat.response(said[2])]


def test_a_reply_that_does_not_do_what_was_asked_is_not_learnt(chat):
    dodging = replace(SHOWN, response="I'm sorry, but I can't help with that request.")
    [lesson] = demonstrate(dodging, RULES, 0, chat)
    end = chat.tokenizer.decode([chat.stop_id])
    assert learnt(lesson, chat) == f"{SHOWN.critique}{end}{SHOWN.revision}{end}"


def test_to_copy_a_reply_that_is_fine_is_not_learnt(chat):
    fine = replace(SHOWN, revision=SHOWN.response, worse="I can't talk about that.")
    assert demonstrate(fine, RULES, 0, chat) == []
    assert len(compare(fine, RULES, 0, chat)) == 3


def test_turns_that_a_template_rewrites_are_learnt_one_by_one(chat, monkeypatch):
    real = type(chat).prompt
    monkeypatch.setattr(
        type(chat), "prompt", lambda self, talk, *rest: [len(talk), *real(self, talk, *rest)]
    )
    lessons = learn_turns((*TALK, assistant("No."), human("Why?"), assistant("Because.")), 1, chat)
    assert [sum(lesson.learnt) for lesson in lessons] == [4, 9]
    assert [len(lesson.tree.responses[0]) for lesson in lessons] == [4, 9]


def test_a_demonstration_is_compared_directly_and_by_a_chain_in_the_other_order(chat):
    direct, chain, answer = compare(SHOWN, RULES, 0, chat)
    texts = [chat.tokenizer.decode(tree.responses[0]) for tree in (direct, chain, answer)]
    first = chat.tokenizer.decode(direct.prompt).index(SHOWN.response)
    second = chat.tokenizer.decode(direct.prompt).index(SHOWN.revision)
    right = "B" if first < second else "A"
    assert f"({right})" in texts[0]
    assert f"({right}) helps a thief" in texts[1]
    assert texts[2].startswith("A)" if right == "B" else "B)")
