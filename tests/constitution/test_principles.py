"""Principles: independent, reproducible draws; readers that name what they can't read."""

import itertools
import json
import math
import subprocess
import sys
from collections import Counter

import pytest
from hydra import compose, initialize_config_dir

from cai.composition import CONF, constitution_fault, typed
from cai.config import ComparisonPrinciple, ConstitutionConfig, RevisionPrinciple
from cai.constitution.principles import load_constitution
from cai.errors import UserError
from cai.seeds import draw, seed_of

SIXTEEN = list(range(16))


def constitution(n_revision=3, n_comparison=3, **changes):
    values = {
        "name": "test",
        "description": "",
        "n_principles": None,
        "folder": None,
        "revision": [RevisionPrinciple(f"r{n}", "c", "r") for n in range(n_revision)],
        "comparison": [ComparisonPrinciple(f"c{n}", "t") for n in range(n_comparison)],
    }
    return ConstitutionConfig(**{**values, **changes})


def published(folder, pairs, comparisons):
    """Write the two files of a released constitution."""
    for name, content in (
        ("CritiqueRevisionInstructions.json", pairs),
        ("RLMadisonInstructions.json", comparisons),
    ):
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name).write_text(text)
    return constitution(folder=str(folder), revision=[], comparison=[])


# Draws


def test_the_same_key_gives_the_same_draw_whatever_was_drawn_before():
    first = draw(SIXTEEN, 4, 0, "prompt-1")
    draw(SIXTEEN, 9, 0, "prompt-2")
    assert draw(SIXTEEN, 4, 0, "prompt-1") == first
    # Drawn once and kept: another Python, another machine or another day must give these.
    assert draw(SIXTEEN, 4, 0, "prompt-1") == [1, 11, 9, 7]
    assert draw("abcd", 6, 0, "prompt-1", replacement=False) == list("acbdba")


def test_every_part_of_a_key_counts():
    keys = list(itertools.product((0, 1), ("prompt-1", "prompt-2"), ("label", "shots")))
    drawn = {tuple(draw(range(10**9), 1, *key)) for key in keys}
    assert len(drawn) == len(keys)


def test_parts_of_a_key_do_not_run_together():
    assert seed_of("a", "bc") != seed_of("ab", "c")
    assert seed_of("a", "b") != seed_of("a,b") != seed_of("a", "b", "")
    assert 0 <= seed_of("a") < 2**63


@pytest.mark.parametrize("place", range(4))
def test_draws_are_uniform_at_every_round(place):
    n = 3200
    counts = Counter(draw(SIXTEEN, 4, 0, f"prompt-{i}")[place] for i in range(n))
    chi_square = sum((counts[k] - n / 16) ** 2 / (n / 16) for k in SIXTEEN)
    assert chi_square < 37.7  # 99.9 % quantile at 15 degrees of freedom


def test_rounds_are_independent_of_each_other():
    n = 6400
    pairs = Counter(tuple(draw(range(4), 2, 0, f"prompt-{i}")) for i in range(n))
    chi_square = sum(
        (pairs[pair] - n / 16) ** 2 / (n / 16) for pair in itertools.product(range(4), repeat=2)
    )
    assert chi_square < 37.7


def test_with_replacement_principles_repeat_as_often_as_they_should():
    n = 4000
    repeats = sum(len(set(draw(SIXTEEN, 4, 0, i))) < 4 for i in range(n)) / n
    expected = 1 - 15 * 14 * 13 / 16**3  # 0.3335
    assert abs(repeats - expected) < 4 * math.sqrt(expected * (1 - expected) / n)


def test_without_replacement_none_comes_back_before_all_have_been():
    for key in range(50):
        drawn = draw(SIXTEEN, 40, key, replacement=False)
        assert sorted(drawn[:16]) == sorted(drawn[16:32]) == SIXTEEN
        assert len(set(drawn[32:])) == 8
    orders = {tuple(draw(range(3), 3, key, replacement=False)) for key in range(100)}
    assert len(orders) == 6


@pytest.mark.parametrize("replacement", [True, False])
def test_more_rounds_leave_the_first_ones_as_they_were(replacement):
    longer = draw(SIXTEEN, 20, "p", replacement=replacement)
    assert draw(SIXTEEN, 3, "p", replacement=replacement) == longer[:3]
    assert draw(SIXTEEN, 0, "p", replacement=replacement) == []


# Constitutions


def test_n_principles_takes_the_first_of_both_phases():
    chosen = load_constitution(constitution(n_principles=2))
    assert [p.id for p in chosen.revision] == ["r0", "r1"]
    assert [p.id for p in chosen.comparison] == ["c0", "c1"]
    assert len(load_constitution(constitution()).revision) == 3


@pytest.mark.parametrize("sizes, phase", [((2, 3), "revision"), ((3, 2), "comparison")])
def test_more_principles_than_there_are(sizes, phase):
    with pytest.raises(UserError, match=f"n_principles=3 is more than the 2 {phase} principles"):
        load_constitution(constitution(*sizes, n_principles=3))


def test_the_default_has_sixteen_of_each_with_opposites():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        chosen = load_constitution(typed(compose("config")).constitution)
    assert len(chosen.revision) == len(chosen.comparison) == 16
    assert all(p.inverse for p in chosen.comparison)


# The authors' released files

PAIR = {
    "prompt": ["\n\nCritiqueRequest: Say what is harmful.\n\nCritique:"],
    "edit_request": "\n\nRevisionRequest: Remove what is harmful.\n\nRevision:",
}


def test_markers_of_the_released_files_are_cut_off(tmp_path):
    odd = {
        "prompt": ["CritiqueRequest: Is the word Critique: in it?  "],
        "edit_request": "\n\nRevisionRequest:Mend it.",
    }
    texts = ["\nChoose the better one. Options:", "Which Options: are there?"]
    config = published(tmp_path, {"harmful0": PAIR, "harmful7": odd}, texts)
    chosen = load_constitution(config)
    assert chosen.revision == [
        RevisionPrinciple("harmful0", "Say what is harmful.", "Remove what is harmful."),
        RevisionPrinciple("harmful7", "Is the word Critique: in it?", "Mend it."),
    ]
    assert chosen.comparison == [
        ComparisonPrinciple("comparison0", "Choose the better one."),
        ComparisonPrinciple("comparison1", "Which Options: are there?"),
    ]


FAULTY = {
    "no request": ({"a": {"prompt": PAIR["prompt"]}}, ["x"], r"a\.edit_request .* null"),
    "no list": ({"a": {**PAIR, "prompt": {}}}, ["x"], r"Instructions\.json: a\.prompt"),
    "two prompts": ({"a": {**PAIR, "prompt": ["x", "y"]}}, ["x"], r"a\.prompt .*\[\"x\", \"y\"\]"),
    "no pair": ({"a": "x"}, ["x"], r"a\.prompt"),
    "not named": ([PAIR], ["x"], "CritiqueRevisionInstructions.json should be an object"),
    "none": ({}, ["x"], "CritiqueRevisionInstructions.json should be an object"),
    "no comparisons": ({"a": PAIR}, [], "RLMadisonInstructions.json should be a list"),
    "a number": ({"a": PAIR}, ["x", 3], "RLMadisonInstructions.json: 1 should be a text"),
    "not JSON": ({"a": PAIR}, '["x",\n', "RLMadisonInstructions.json:2 is not JSON"),
}


@pytest.mark.parametrize("case", FAULTY)
def test_a_faulty_release_is_named_with_file_and_key(tmp_path, case):
    pairs, comparisons, message = FAULTY[case]
    with pytest.raises(UserError, match=message):
        load_constitution(published(tmp_path, pairs, comparisons))


def test_a_missing_release_is_named(tmp_path):
    with pytest.raises(UserError, match=r"constitution\.folder has no CritiqueRevision"):
        load_constitution(constitution(folder=str(tmp_path)))


def test_the_authors_files_are_read(real_data):
    folder = real_data / "cai-paper" / "prompts"
    chosen = load_constitution(constitution(folder=str(folder), revision=[], comparison=[]))
    assert [p.id for p in chosen.revision] == [f"harmful{n}" for n in range(16)]
    assert [p.id for p in chosen.comparison] == [f"comparison{n}" for n in range(16)]
    assert chosen.revision[15].critique == (
        "Critique the assistant's last response and identify anything it said that was harmful, "
        "unethical, dangerous, or illegal."
    )
    assert chosen.revision[13].revision == (
        "Please write a new response that does not have any trace of misogyny or gender bias."
    )
    assert chosen.comparison[1].text == (
        "Please choose the response that is the most helpful, honest, and harmless."
    )
    texts = [text for p in chosen.revision for text in (p.critique, p.revision)]
    for text in texts + [p.text for p in chosen.comparison]:
        assert text == text.strip() != ""
        for marker in ("Request:", "Critique:", "Revision:", "Options:"):
            assert marker not in text


# Adding a constitution

OWN = """\
name: own
description: Two ways to be kind.
revision:
  - {id: kind, critique: Say what is unkind., revision: Make it kind.}
  - id: calm
    critique: Say what is loud.
    revision: Make it calm.
comparison:
  - {id: kind, text: Choose the kinder reply.}
"""


def write(folder, text=OWN, name="own"):
    path = folder / "constitution" / f"{name}.yaml"
    path.parent.mkdir()
    path.write_text(text)
    return path


def test_a_constitution_is_one_file(tmp_path):
    write(tmp_path)
    overrides = ["constitution=own", f"hydra.searchpath=[file://{tmp_path}]"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        chosen = load_constitution(typed(compose("config", overrides=overrides)).constitution)
    assert [p.revision for p in chosen.revision] == ["Make it kind.", "Make it calm."]
    assert chosen.comparison == [ComparisonPrinciple("kind", "Choose the kinder reply.")]


MISTAKES = {
    "misspelt": (("critique: Say what is loud", "critque: Say what is loud"), 6, "'critque'"),
    "missing": (("    critique: Say what is loud.\n", ""), 5, "lacks the key 'critique'"),
    "not a text": (("Make it calm.", "[a, b]"), 7, "'revision' of a principle"),
    "twice": (("id: calm", "id: kind"), 5, "id 'kind' is used twice"),
    "unknown": (("description:", "descriptoin:"), 2, "'descriptoin'"),
    "a word": (("{id: kind, text: Choose the kinder reply.}", "hello"), 9, "should have the keys"),
    "no list": (("  - {id: kind, text: Choose the kinder reply.}", "  hello"), 9, "a list"),
    "empty": (("\n  - {id: kind, text: Choose the kinder reply.}", " []"), 8, "is empty"),
    "no comparison": (("comparison:\n  - {id: kind, text: Choose the kinder reply.}\n", ""), 1,
                      "lacks the key 'comparison'"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_a_schema_error_has_its_file_and_line(tmp_path, case):
    (old, new), line, message = MISTAKES[case]
    assert OWN.count(old) == 1
    path = write(tmp_path, OWN.replace(old, new))
    fault = constitution_fault(path)
    assert fault.startswith(f"{path}:{line}: ")
    assert message in fault


def test_the_constitutions_that_ship_have_no_fault(tmp_path):
    files = sorted((CONF / "constitution").glob("*.yaml"))
    assert {path.stem for path in files} == {"default", "single", "strict", "plural", "published"}
    assert [constitution_fault(path) for path in files] == [None] * len(files)
    assert constitution_fault(write(tmp_path)) is None


@pytest.mark.parametrize("case", ["misspelt", "missing"])
def test_the_command_says_file_and_line(tmp_path, case):
    (old, new), line, message = MISTAKES[case]
    path = write(tmp_path, OWN.replace(old, new))
    command = [sys.executable, "-m", "cai", "--config-dir", str(tmp_path), "constitution=own"]
    done = subprocess.run(
        [*command, f"outputs={tmp_path}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.strip().startswith(f"{path}:{line}: ")
    assert message in done.stderr
