"""Revise, SL-CAI and feedback on the tiny model: provenance, resuming, and every option."""

import itertools
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from cai.composition import CONF, typed
from cai.constitution.principles import load_constitution
from cai.constitution.prompts import critique_request, revision_request
from cai.contracts.assistants import HelpfulAssistant
from cai.contracts.table import stages
from cai.data.sources import load_corpus
from cai.data.splits import side
from cai.dialogue import assistant, human
from cai.errors import UserError
from cai.jsonl import Rows
from cai.lm.generate import Sampling
from cai.lm.load import load_model
from cai.pipeline.execute import execute
from cai.pipeline.plan import plan
from cai.pipeline.store import Store
from cai.results.labels import LabelCost
from cai.results.revisions import Revision, RevisionRound
from cai.sampling.replies import sample_replies
from cai.sampling.shards import make_rows
from cai.seeds import draw
from cai.stages import feedback, revise, sft
from cai.stages.sft import usable_revisions

TOUR = ("model=tiny", "scale=tour", "tracking=off", "hardware=cpu", "hardware.threads=1")
LENIENT = ("revise.guards.truncation=false", "revise.guards.markers=false")
SHOTS = ("revise.few_shots=1", "revise.prompts=3")


def config(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return typed(compose("config", overrides=[*TOUR, *overrides]))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("stages")


@pytest.fixture(scope="module")
def made(home):
    """Return a function that makes a stage's result; what is upstream is made once."""

    def make(*overrides, root=home):
        chosen, store = config(*overrides), Store(root / "artifacts")
        steps = plan(chosen, store, stages())
        found = execute(steps, chosen, store, root)
        return steps[-1].stage.result(found.stage, found.fingerprint, found.path)

    return make


@pytest.fixture(scope="module")
def revised(made):
    return made("stage=revise", *SHOTS)


@pytest.fixture(scope="module")
def helpful(revised, home):
    """The assistant that all results come from."""
    [folder] = (home / "artifacts").glob("helpful-*")
    fingerprint = HelpfulAssistant("helpful", "", folder).record()["fingerprint"]
    return HelpfulAssistant("helpful", fingerprint, folder)


def test_snapshots_of_the_policy_are_systems_of_their_own(made):
    """Evenly spread: two of three are number 3 * 1 // 2 and number 3 * 2 // 2."""
    keys = (
        "stage=evaluate",
        "rl.iterations=3",
        "rl.watch.evaluate_every=1",
        "evaluate.baselines.snapshots=2",
    )
    artifact = made(*keys, "rl.watch.guard=off", "evaluate.persona=false")
    systems = artifact.summary.read().systems
    names = [system.name for system in systems]
    assert names == ["helpful", "sl_cai", "rl_cai", "rl_cai@1", "rl_cai@3"]
    policy, *_, last = systems[2:]
    assert last.model == f"{policy.model}@3"
    for key in ("harmlessness_elo", "evasiveness"):  # the last snapshot is the policy
        assert vars(last.metrics[key]) == pytest.approx(vars(policy.metrics[key]), abs=0.1)


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


# Provenance


def test_a_row_says_what_it_came_from(revised, helpful):
    rows = revised.rows.read()
    prompts = load_corpus(config().data).red_team.train[:3]
    rules = load_constitution(config().constitution).revision
    for row, prompt in zip(rows, prompts, strict=True):
        assert row.prompt_id == prompt.id
        assert row.kind == prompt.kind
        assert row.messages == prompt.conversation
        assert row.model == helpful.fingerprint
        assert [step.round for step in row.rounds] == [1, 2, 3, 4]
        drawn = [rule.id for rule in draw(rules, 4, 0, prompt.id)]
        assert [step.principle for step in row.rounds] == drawn
        for step in row.rounds:
            assert isinstance(step.critique, str)
            assert isinstance(step.revision, str)
            assert len(step.shots) == 1
            assert set(step.shots.values()) <= {rule.id for rule in rules}
            assert isinstance(step.faults, list)
    seeds = [row.seed for row in rows]
    seeds += [seed for row in rows for step in row.rounds
              for seed in (step.critique_seed, step.revision_seed)]  # fmt: skip
    assert len(set(seeds)) == 3 * (1 + 2 * 4)


def test_a_row_can_be_made_again_from_what_it_says(revised, helpful):
    """Every text comes out of the model, the seeds, the principles and the texts before it."""
    chosen = config("stage=revise")
    model = load_model(chosen.model, chosen.hardware)
    model.add_adapter("helpful", 0, helpful.model)
    rules = {rule.id: rule for rule in load_constitution(chosen.constitution).revision}
    demonstrations = {d.prompt.id: d for d in load_corpus(chosen.data).demonstrations}

    def say(conversation, seed):
        [reply] = sample_replies(model, "helpful", [conversation], [seed], Sampling(16))
        return reply.text

    row = revised.rows.read()[2]
    talk, text = row.messages, row.response
    assert say(talk, row.seed) == text
    for step in row.rounds:
        shots = ()
        for name, rule in step.shots.items():
            shot = demonstrations[name]
            asked = revision_request(
                shot.prompt.conversation, shot.response, rules[rule], shot.critique
            )
            shots += (*asked, assistant(shot.revision))
        rule, critique = rules[step.principle], step.critique
        asked = shots + critique_request(talk, text, rule)
        assert say(asked, step.critique_seed) == critique
        asked = shots + revision_request(talk, text, rule, critique)
        text = step.revision
        assert say(asked, step.revision_seed) == text


def test_the_yield_table_counts_the_verdicts_of_the_rows(revised):
    rows, table = revised.rows.read(), revised.yields.read()
    for number in (1, 2, 3, 4):
        verdicts = [row.rounds[number - 1].faults for row in rows]
        counted = {y.fault: y.rows for y in table if y.round == number}
        assert counted.pop("usable", 0) == sum(not faults for faults in verdicts)
        for name, n in counted.items():
            assert n == sum(name in faults for faults in verdicts)
        assert set(counted) == set(itertools.chain(*verdicts))
    assert {y.of for y in table} == {3}
    assert any(y.fault == "truncation" for y in table)  # 16 bytes seldom end a sentence


# Batches and interruptions


@pytest.mark.parametrize("batch_size", [1, 2])
def test_rows_do_not_depend_on_the_batch_size(revised, made, batch_size):
    other = made("stage=revise", *SHOTS, f"revise.batch_size={batch_size}")
    assert other.path != revised.path
    assert other.rows.read() == revised.rows.read()


def test_near_duplicates_are_found_across_shards(made, monkeypatch):
    def same(model, adapter, talks, seeds, sampling):
        replies = sample_replies(model, adapter, talks, seeds, sampling)
        return [replace(reply, text="I won't do that.", finished=True) for reply in replies]

    monkeypatch.setattr(revise, "sample_replies", same)
    chosen = (
        "stage=revise",
        "revise.prompts=3",
        "revise.rounds=2",
        "revise.guards.no_change=false",
        "revise.guards.critique_echo=false",
    )
    marked = made(*chosen, "revise.batch_size=1").rows.read()
    for number in (0, 1):
        faults = [row.rounds[number].faults for row in marked]
        assert faults == [[], ["near_duplicate"], ["near_duplicate"]]
    free = made(*chosen, "revise.batch_size=1", "revise.guards.near_duplicate=false")
    assert all(step.faults == [] for row in free.rows.read() for step in row.rounds)


class Killed(Exception):
    """Stands for the end of the process."""


def interrupted(function, calls):
    """Fail at the n-th call."""
    counter = itertools.count()

    def call(*arguments):
        if next(counter) == calls:
            raise Killed
        return function(*arguments)

    return call


def new_home(helpful, tmp_path):
    """Take over the helpful assistant and nothing else."""
    shutil.copytree(helpful.path, tmp_path / "artifacts" / helpful.name)
    return tmp_path


# Two shards of two prompts and two rounds ask 5 times each.
@pytest.mark.parametrize(
    "where, calls, asked_again",
    [("sample_replies", 0, 10), ("sample_replies", 4, 10), ("sample_replies", 5, 5),
     ("sample_replies", 9, 5), ("mark_repeats", 0, 0), ("yield_table", 0, 0)],
)  # fmt: skip
def test_wherever_it_is_interrupted_the_result_is_the_same(
    made, helpful, tmp_path, monkeypatch, where, calls, asked_again
):
    chosen = ("stage=revise", "revise.batch_size=2", "revise.rounds=2", "revise.prompts=4")
    whole = made(*chosen)
    root = new_home(helpful, tmp_path)
    monkeypatch.setattr(revise, where, interrupted(getattr(revise, where), calls))
    with pytest.raises(Killed):
        made(*chosen, root=root)
    monkeypatch.undo()
    counted = []
    monkeypatch.setattr(
        revise, "sample_replies", lambda *a: (counted.append(1), sample_replies(*a))[1]
    )
    resumed = made(*chosen, root=root)
    assert len(counted) == asked_again
    assert resumed.record()["files"] == whole.record()["files"]
    assert files(resumed.path) == ["artifact.json", "revisions.jsonl", "yield.json"]


def test_shards_left_by_a_kill_in_the_last_moment_are_removed(tmp_path):
    file = Rows(tmp_path / "rows.jsonl", dict[str, int])
    make_rows(file, 5, 2, lambda part: [{"n": n} for n in part], "rows")
    (tmp_path / "rows.shards").mkdir()
    (tmp_path / "rows.shards" / "00000000.jsonl").write_text("{}\n")
    rows = make_rows(file, 5, 2, lambda part: pytest.fail("made again"), "rows")
    assert [row["n"] for row in rows] == [0, 1, 2, 3, 4]
    assert files(tmp_path) == ["rows.jsonl"]


# Options of revise


def test_no_rounds_leave_the_first_reply_alone(made, revised):
    rows = made("stage=revise", *SHOTS, "revise.rounds=0").rows.read()
    assert [row.response for row in rows] == [row.response for row in revised.rows.read()]
    assert all(row.rounds == [] for row in rows)
    with pytest.raises(UserError, match=r"revise\.rounds=0 makes no revision"):
        made("stage=sft", "revise.rounds=0")


def test_fewer_rounds_are_the_beginning_of_more(made, revised):
    rows = made("stage=revise", *SHOTS, "revise.rounds=2").rows.read()
    for row, longer in zip(rows, revised.rows.read(), strict=True):
        assert row.rounds == longer.rounds[:2]


def test_direct_revisions_are_not_preceded_by_a_critique(made, revised, monkeypatch):
    seen = []

    def record(model, adapter, talks, seeds, sampling):
        seen.extend(talks)
        return sample_replies(model, adapter, talks, seeds, sampling)

    monkeypatch.setattr(revise, "sample_replies", record)
    rows = made("stage=revise", "revise.critique=false", "revise.prompts=3").rows.read()
    assert len(seen) == 3 * (1 + 4)
    rules = {rule.id: rule for rule in load_constitution(config().constitution).revision}
    for row, asked, longer in zip(rows, seen[3:6], revised.rows.read(), strict=True):
        step = row.rounds[0]
        assert step.critique is step.critique_seed is None
        assert step.principle == longer.rounds[0].principle
        assert asked == revision_request(row.messages, row.response, rules[step.principle], None)


def test_without_replacement_no_principle_comes_twice(made):
    chosen = ("stage=revise", "revise.replacement=false", "revise.prompts=2")
    rows = made(*chosen, "constitution.n_principles=4").rows.read()
    for row in rows:
        assert len({step.principle for step in row.rounds}) == 4


# SL-CAI


def step(number, revision, *faults):
    return RevisionRound(number, "rule", {}, None, None, 0, revision, True, list(faults))


STEPS = [step(1, "one"), step(2, "two", "echo"), step(3, "three"), step(4, "four", "empty")]
ROW = Revision("p", "k", (human("How?"),), 0, "m", "zero", True, STEPS)


@pytest.mark.parametrize(
    "up_to, chosen, expected",
    [
        (4, "all", ["one", "three"]),
        (3, "all", ["one", "three"]),
        (2, "all", ["one"]),
        (1, "all", ["one"]),
        (4, "last", []),  # the last revision is faulty, and an earlier one is not the last
        (3, "last", ["three"]),
        (2, "last", []),
        (1, "last", ["one"]),
    ],
)
def test_which_revisions_are_trained_on(up_to, chosen, expected):
    settings = config("stage=sft", f"sft.up_to_round={up_to}", f"sft.revisions={chosen}").sft
    pairs = usable_revisions(ROW, settings)
    assert [text for _, text in pairs] == expected
    assert all(talk == ROW.messages for talk, _ in pairs)


def test_a_row_knows_its_reply_after_every_round():
    assert [ROW.after(n) for n in range(5)] == ["zero", "one", "two", "three", "four"]


@pytest.fixture
def trained_on(monkeypatch):
    """Record the trees that an SFT run trains on."""
    seen = []
    original = sft.SFTModule

    def module(model, adapter, examples, *rest):
        seen.extend(examples)
        return original(model, adapter, examples, *rest)

    monkeypatch.setattr(sft, "SFTModule", module)
    return seen


@pytest.mark.parametrize("revisions, up_to", [("all", 4), ("all", 2), ("last", 4), ("last", 1)])
def test_sl_cai_trains_on_the_chosen_revisions(made, trained_on, revisions, up_to):
    chosen = (*LENIENT, f"sft.revisions={revisions}", f"sft.up_to_round={up_to}")
    artifact = made("stage=sft", *chosen)
    chat = load_model(config().model, config().hardware).chat
    expected = []
    for row in made("stage=revise", *LENIENT).rows.read():
        steps = row.rounds[:up_to]
        for one in steps if revisions == "all" else steps[-1:]:
            if not one.faults:
                expected.append((chat.prompt(row.messages), [chat.response(one.revision)]))
    metrics = artifact.metrics.read()
    assert expected
    assert [tuple(tree) for tree in trained_on[: len(expected)]] == expected
    assert (metrics.revisions, metrics.helpful) == (len(expected), len(expected))
    assert len(trained_on) == 2 * len(expected)


@pytest.mark.parametrize("source", ["human", "model"])
def test_nothing_held_out_is_trained_on(made, trained_on, source):
    made("stage=sft", *LENIENT, f"sft.helpful_source={source}", "sft.helpful_per_revision=3")
    corpus = load_corpus(config().data)
    chat = load_model(config().model, config().hardware).chat
    held_out = [
        chat.prompt(getattr(record, "prompt", record).conversation)
        for records in (corpus.red_team, corpus.borderline, corpus.helpful,
                        corpus.helpful_pairs, corpus.harmless_pairs)
        for part in (records.validation, records.test)
        for record in part
    ]  # fmt: skip
    assert len(held_out) > 50
    assert all(tree.prompt not in held_out for tree in trained_on)


def test_the_helpful_model_answers_each_prompt_twice(made, trained_on, caplog):
    artifact = made("stage=sft", *LENIENT, "sft.helpful_source=model")
    rows, metrics = artifact.helpful_answers.read(), artifact.metrics.read()
    wanted = metrics.revisions
    assert [row.sample for row in rows] == [0, 1] * (-(-wanted // 2))
    assert [row.prompt_id for row in rows[::2]] == [row.prompt_id for row in rows[1::2]]
    assert all(a.response != b.response for a, b in zip(rows[::2], rows[1::2]))
    train = {example.prompt.id: example.prompt for example in
             load_corpus(config().data).helpful.train}  # fmt: skip
    assert {row.prompt_id for row in rows} <= set(train)
    # Replies that were cut off are left out, and that there are fewer is said.
    chat = load_model(config().model, config().hardware).chat
    whole = [row for row in rows if row.finished and row.response]
    cut = [row for row in rows if not row.finished and row.response[-1:].isalnum()]
    shown = [tree.responses[0] for tree in trained_on]
    assert whole
    assert cut
    assert all(chat.response(row.response) in shown for row in whole[: metrics.helpful // 2])
    assert all(chat.response(row.response) not in shown for row in cut)
    assert metrics.helpful < wanted
    assert f"{metrics.helpful} helpful answers of the model are whole, {wanted} wanted" in (
        caplog.text
    )


# Feedback


def test_pairs_and_labels(made, monkeypatch):
    artifact = made("stage=feedback", *LENIENT)
    pairs, labels, report = artifact.pairs.read(), artifact.labels.read(), artifact.report.read()
    assert len(pairs) == 6
    for row in pairs:
        assert side(row.messages) == "train"
        assert row.a != row.b
    assert report.cost == LabelCost(2 * len(labels), sum(row.tokens for row in labels))
    assert report.empty == sum(not (row.a and row.b) for row in pairs)
    comparisons = artifact.comparisons.read()
    for row, label in zip(comparisons, labels, strict=True):
        a_wins = label.label >= 0.5
        assert row.chosen[0]["content"] == (label.a if a_wins else label.b)
        assert row.probability == max(label.label, 1 - label.label)
    other = made("stage=feedback", *LENIENT, "feedback.sampling.batch_size=1")
    again = other.labels.read()
    expected = [row.label for row in labels]
    assert [row.label for row in again] == pytest.approx(expected, abs=1e-4)
    assert other.pairs.read() == pairs


def test_a_probe_labels_the_same_pairs(made):
    asked, read = (
        made("stage=feedback", *LENIENT, f"feedback.method={method}")
        for method in ("choice", "probe")
    )
    assert asked.pairs.read() == read.pairs.read()
    labels = [[row.label for row in each.labels.read()] for each in (asked, read)]
    assert labels[0] != labels[1]
    report = read.report.read()
    assert report.position_bias == 0.5, "none"
    assert report.known > 0


def test_a_pair_without_a_label_is_left_out_and_counted(made, monkeypatch):
    original = feedback._label

    def partly(judge, comparisons):
        first, *others = original(judge, comparisons)
        return [replace(first, label=None, probability=None, unreadable=2), *others]

    monkeypatch.setattr(feedback, "_label", partly)
    artifact = made("stage=feedback", *LENIENT, "feedback.sampling.reply_tokens=12")
    report, labels = artifact.report.read(), artifact.labels.read()
    assert (report.dropped, report.unreadable) == (1, 2)
    assert len(artifact.comparisons.read()) == len(labels) - 1
    monkeypatch.setattr(feedback, "_label", lambda judge, comparisons: [
        replace(row, label=None) for row in original(judge, comparisons)
    ])  # fmt: skip
    with pytest.raises(UserError, match="no comparison could be labelled"):
        made("stage=feedback", *LENIENT, "feedback.sampling.reply_tokens=11")


def test_the_store_was_not_left_with_scraps(made, home):
    made("stage=sft", *LENIENT)
    for folder in (home / "artifacts").iterdir():
        if folder.is_dir() and not folder.name.endswith(".partial"):
            assert not [name for name in files(folder) if "shard" in name or ".tmp" in name]
            assert not Path(folder / "sampled.jsonl").exists()
