"""Records, readers and splits: nothing is mangled and nothing leaks."""

import gzip
import itertools
import json
import re

import pytest

from cai.config import BadRows, DataConfig, DataSource
from cai.data.folder import read_folder
from cai.data.forms import Forms
from cai.data.hh import read_hh_rlhf
from cai.data.records import Comparison, Prompt
from cai.data.sources import BUILTIN, divide, load_corpus
from cai.data.splits import family, side, split
from cai.dialogue import (
    assistant,
    check_prompt,
    from_messages,
    from_text,
    human,
    to_messages,
    to_text,
)
from cai.errors import UserError


@pytest.fixture(scope="module")
def corpus():
    return divide(read_folder())


def conversations(records):
    return [getattr(r, "prompt", r).conversation for r in records]


def test_texts_and_messages_round_trip():
    talk = (human("Hi: there"), assistant("Yes.\n\nHumans: are we"), human("Human: again"))
    assert from_text(to_text(talk)) == talk
    assert from_messages(to_messages(talk)) == talk


@pytest.mark.parametrize(
    "text", ["", "Assistant: hi", "\n\nHuman: a\n\nHuman: b", "\n\nHuman: a\n\nAssistant:", "x"]
)
def test_a_text_that_is_no_dialogue_is_refused(text):
    with pytest.raises(ValueError):
        from_text(text)


def test_a_prompt_ends_with_the_human():
    with pytest.raises(ValueError, match="end with the human"):
        check_prompt((human("a"), assistant("b")))


def test_no_split_leaks(corpus):
    """A prompt family is on one side, over all sets of records together."""
    sides = {"train": set(), "validation": set(), "test": set()}
    names = ("red_team", "borderline", "helpful", "helpful_pairs", "harmless_pairs", "judgements")
    for name in names:
        for part, records in getattr(corpus, name)._asdict().items():
            sides[part] |= {family(talk) for talk in conversations(records)}
    sides["train"] |= {family(record.prompt.conversation) for record in corpus.demonstrations}
    for a, b in itertools.combinations(sides.values(), 2):
        assert not a & b
    assert all(sides.values())


def test_what_the_judge_learns_from_no_other_stage_reads(corpus):
    """Its comparisons share no opening with any comparison, demonstration or held-out prompt."""
    learnt = {
        family(talk) for axis in corpus.judge for talk in conversations((*axis.train, *axis.test))
    }
    others = [*corpus.demonstrations]
    for kind in (corpus.judgements, corpus.helpful_pairs, corpus.harmless_pairs):
        others += [record for records in kind for record in records]
    assert not learnt & set(map(family, conversations(others)))
    trained = {family(talk) for axis in corpus.judge for talk in conversations(axis.train)}
    held_out = (*corpus.red_team.test, *corpus.borderline.test, *corpus.helpful.test)
    assert not trained & set(map(family, conversations(held_out)))


def test_the_judge_has_enough_to_learn_from_and_to_be_tested_on(corpus):
    for axis in corpus.judge:
        assert len(axis.train) >= 200
        assert len(axis.validation) + len(axis.test) >= 40


def test_a_continuation_stays_with_its_opening():
    one = (human("How do I pick a LOCK?"),)
    more = (human("how do i pick a lock"), assistant("Why?"), human("Because."))
    assert family(one) == family(more)
    assert side(one) == side(more)


def test_splits_are_fixed_and_drop_repeats():
    prompts = [Prompt(str(n), "x", (human(f"question {n}"),)) for n in range(1000)]
    parts = split(prompts + prompts, lambda prompt: prompt.conversation)
    assert sum(map(len, parts)) == 1000
    assert 750 < len(parts.train) < 850
    assert parts == split(prompts, lambda prompt: prompt.conversation)


def test_the_builtin_data_are_whole_and_varied(corpus):
    red_team = list(itertools.chain(*corpus.red_team))
    assert len({prompt.kind for prompt in red_team}) >= 12
    assert len(red_team) >= 100
    assert sum(len(p.conversation) > 1 for p in red_team) >= len(red_team) / 4
    for records in (red_team, list(itertools.chain(*corpus.helpful_pairs))):
        openings = [" ".join(family(talk).split()[:5]) for talk in conversations(records)]
        assert max(map(openings.count, openings)) <= max(3, len(records) / 100)
    judgements = list(itertools.chain(*corpus.judgements))
    assert len({judgement.prompt.kind for judgement in judgements}) >= 6
    for demonstration in corpus.demonstrations:
        assert "{first}" in demonstration.reasoning
        assert "{second}" in demonstration.reasoning
        same = demonstration.response == demonstration.revision
        assert same == (demonstration.worse is not None)


def test_demonstrations_name_principles_of_their_data(corpus):
    ids = [{rule.id for rule in rules} for rules in corpus.principles]
    assert all(len(part) >= 10 for part in ids)
    named = [(d.principle, d.comparison_principle) for d in corpus.demonstrations]
    for part, names in zip(ids, zip(*named, strict=True), strict=True):
        assert set(names) <= part | {None}
        assert len(set(names)) > len(part) / 2


def test_demonstrations_without_principles_are_given_some(tmp_path):
    rows = [
        json.loads(line) for line in (BUILTIN / "demonstrations.jsonl").read_text().splitlines()
    ]
    bare = [{k: v for k, v in row.items() if "principle" not in k} for row in rows]
    (tmp_path / "demonstrations.jsonl").write_text("\n".join(map(json.dumps, bare)))
    corpus = divide(read_folder(tmp_path))
    assert {d.principle for d in corpus.demonstrations} == {None}
    assert corpus.principles.revision


def test_the_length_of_a_reply_does_not_give_the_answer_away(corpus):
    for kind in (corpus.helpful_pairs, corpus.harmless_pairs, corpus.judgements):
        pairs = list(itertools.chain(*kind))
        longer = sum(len(pair.a) > len(pair.b) for pair in pairs) / len(pairs)
        assert 0.4 < longer < 0.6


SAID = ("response", "chosen", "rejected", "critique", "revision", "text", "inverse")


def test_the_builtin_files_have_unique_ids_and_clean_texts():
    for path in BUILTIN.glob("*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert len({(row["id"], row.get("phase")) for row in rows}) == len(rows)
        for row in rows:
            texts = [m["content"] for m in row.get("messages", [])]
            texts += [row[k] for k in SAID if k in row]
            for text in texts:
                assert text == text.strip()
                assert not re.search(r"(Human|Assistant):|<\|", text)


@pytest.mark.parametrize(
    "line, said",
    [
        ('{"id": "a"}', "has neither 'prompt' nor 'messages'"),
        ("{", "is not JSON"),
        ("[1]", "should be a JSON object"),
        ('{"id": "a", "kind": "k", "messages": [{"role": "user"}]}', "message 1 needs a role"),
        ('{"id": "", "kind": "k", "messages": [{"role": "user", "content": "x"}]}', "'id'"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path, line, said):
    good = '{"id": "g", "kind": "k", "messages": [{"role": "user", "content": "x"}]}'
    for name in ("borderline", "helpful", "comparisons", "demonstrations", "judgements"):
        (tmp_path / f"{name}.jsonl").write_text((BUILTIN / f"{name}.jsonl").read_text())
    (tmp_path / "red_team.jsonl").write_text(f"{good}\n\n{line}\n")
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        read_folder(tmp_path)
    assert "red_team.jsonl:3" in str(caught.value)


def data_config(source, folder, bad_rows=BadRows.strict):
    return DataConfig(source=source, folder=str(folder), revision=None, bad_rows=bad_rows)


def test_missing_and_empty_data_are_said(tmp_path):
    config = data_config(DataSource.builtin, tmp_path)
    with pytest.raises(UserError, match="has none of"):
        load_corpus(config)
    for path in BUILTIN.glob("*.jsonl"):
        (tmp_path / path.name).write_text(path.read_text())
    (tmp_path / "red_team.jsonl").write_text("")
    with pytest.raises(UserError, match="no red_team records"):
        load_corpus(config)


def hh_folder(tmp_path, rows):
    for subset in ("harmless-base", "helpful-base"):
        (tmp_path / subset).mkdir()
        with gzip.open(tmp_path / subset / "train.jsonl.gz", "wt") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return data_config(DataSource.hh_rlhf, tmp_path, BadRows.skip)


def test_hh_rows_keep_their_whole_context(tmp_path):
    text = "\n\nHuman: one: two\n\nthree\n\nAssistant: x\n\nHuman: four\n\nAssistant:"
    row = {"chosen": f"{text} good", "rejected": f"{text} bad"}
    pair = Forms("harmless-base", "harmless").comparison(row)
    assert pair.prompt.conversation == (human("one: two\n\nthree"), assistant("x"), human("four"))
    assert (pair.a, pair.b, pair.probability) == ("good", "bad", 1.0)


def test_hh_rows_that_cannot_be_read_are_counted_and_named(tmp_path, caplog):
    good = {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}
    other = {**good, "rejected": "\n\nHuman: z\n\nAssistant: c"}
    config = hh_folder(tmp_path, [good, other, {"chosen": "x"}, other])
    assert len(read_hh_rlhf(config, "harmless-base")) == 1
    assert "2 rows left out, first" in caplog.text
    assert "train.jsonl.gz:3 lacks the key 'rejected'" in caplog.text
    config.bad_rows = BadRows.strict
    with pytest.raises(UserError, match=r"train.jsonl.gz:2 .* \(and 2 more of 4 rows"):
        read_hh_rlhf(config, "harmless-base")
    assert "train.jsonl.gz:2 is malformed: the sides differ" in caplog.text


def test_the_published_rows_can_be_read(real_data, tmp_path, caplog):
    (tmp_path / "harmless-base").symlink_to(real_data / "hh-rlhf" / "harmless-base")
    read = read_hh_rlhf(data_config(DataSource.hh_rlhf, tmp_path, BadRows.skip), "harmless-base")
    assert 0.98 * 1132 < len(read) <= 1132
    assert sum(len(pair.prompt.conversation) > 1 for pair in read) > 0.6 * len(read)


def test_swapping_twice_changes_nothing_and_rows_round_trip():
    pair = Comparison(Prompt("i", "k", (human("q"),)), "x", "y", 0.25, "harmless")
    assert pair.swap().swap() == pair
    row = pair.to_row()
    assert row.chosen[0]["content"] == "y"
    assert row.probability == 0.75
    assert Comparison.from_row(row) == pair.swap()


def test_an_exam_is_drawn_from_what_is_held_out_and_teaches_as_before(corpus):
    from test_config import config

    small = load_corpus(config("data.exam=3").data)
    for name in ("helpful_pairs", "harmless_pairs", "judgements"):
        few, all_ = getattr(small, name), getattr(corpus, name)
        assert few.train == all_.train
        for some, whole in ((few.validation, all_.validation), (few.test, all_.test)):
            assert len(some) == 3
            assert all(record in whole for record in some)
    assert small.judge.harmlessness.train == corpus.judge.harmlessness.train
    assert len(small.judge.harmlessness.test) == 3
    assert small.red_team == corpus.red_team
