"""The PM stage: mixture, halves, members, metrics, card, and preference model pre-training."""

import copy
import json
import math
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from transformers import AutoModelForSequenceClassification

import cai.stages.pm as stage
import cai.stages.rl as rl_stage
import cai.training.pm_metrics as metrics_module
import cai.training.rollouts as rollouts
from cai.algorithms.preference import Pair, pairwise_loss
from cai.composition import CONF, typed
from cai.config import BadRows, MixtureConfig
from cai.contracts import costs
from cai.contracts.assistants import HelpfulAssistant
from cai.contracts.cards import preference_model_card
from cai.contracts.policies import PolicyResult, RLInputs
from cai.contracts.preferences import PMInputs, PreferenceModels
from cai.contracts.table import stages
from cai.data.pairs import SOURCE, read_pairs
from cai.data.records import Comparison, Prompt
from cai.data.sources import load_corpus
from cai.data.splits import family
from cai.dialogue import assistant, human, to_messages
from cai.errors import UserError
from cai.lm.heads import ScalarHead, load_head, own_network, save_model
from cai.lm.load import load_model
from cai.lm.packing import Tree
from cai.pipeline.plan import plan
from cai.pipeline.stage import Job
from cai.pipeline.store import Store
from cai.results.labels import HeldOut, PMMetrics, PMSettings
from cai.seeds import seed_of
from cai.tracking import track
from cai.training.data import schedule_batches
from cai.training.preference import PreferenceModule, pair_tree, score_responses
from cai.training.reward import load_reward_model

BASE = (
    "stage=pm", "model=tiny", "scale=tour", "tracking=off", "hardware=cpu", "hardware.threads=1",
    "recipe=hh_rlhf", "pm.holdout_twin=false", "pm.batch_size=2",
    "pm.epochs=0.5", "pm.optimizer.lr=0.01",
)  # fmt: skip


TWINS = ("pm.holdout_twin=true", "pm.ensemble.members=2", "pm.epochs=0.1")


WHOLE = "pm.full_finetuning=true"


def config(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return typed(compose("config", overrides=[*BASE, *overrides]))


def settings(*overrides):
    return stages()["pm"].read(config(*overrides))


def no_labels():
    """What human labels need from upstream: nothing is read."""
    return PMInputs(HelpfulAssistant("helpful", "0", Path("none")), None)


def make(folder, *overrides):
    """Run the stage; return the result and its settings."""
    chosen, how = settings(*overrides), config(*overrides)
    folder.mkdir(exist_ok=True)
    out = PreferenceModels("pm", "0", folder)
    with track(how.tracking, "pm", folder.parent, {}) as tracker:
        stage.run(chosen, no_labels(), out, Job(how.hardware, how.trainer, tracker))
    return out, chosen


@pytest.fixture(scope="module")
def corpus():
    return load_corpus(config().data)


@pytest.fixture(scope="module")
def lessons(tmp_path_factory):
    """Two dozen comparisons of nobody's data."""
    rows = [
        {"prompt": f"What is {n}?", "chosen": f"It is {n}.", "rejected": "No." * (1 + n % 3)}
        for n in range(24)
    ]
    path = tmp_path_factory.mktemp("lessons") / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return make(tmp_path_factory.mktemp("plain") / "pm")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory, lessons):
    return make(tmp_path_factory.mktemp("pretrained") / "pm", f"pm.pretrain={lessons}")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, lessons):
    """A PM of which all weights were trained."""
    return make(tmp_path_factory.mktemp("whole") / "pm", f"pm.pretrain={lessons}", WHOLE)


def comparison(question, a="yes", b="no", source="helpful", probability=1.0):
    prompt = Prompt(question, "kind", (human(question),))
    return Comparison(prompt, a, b, probability, source)


# Mixture


def mixed():
    kinds = ["harmless"] * 3 + ["helpful"] * 5
    return [comparison(f"q{n}", source=kind) for n, kind in enumerate(kinds)]


@pytest.mark.parametrize(
    "harmless, helpful, weights",
    # 8 pairs, 3 and 5 of a kind: share * 8 / 3 and share * 8 / 5
    [(1.0, 1.0, (4 / 3, 4 / 5)), (0.5, 0.5, (4 / 3, 4 / 5)), (80.0, 20.0, (32 / 15, 8 / 25))],
)
def test_the_mixture_is_the_share_of_the_loss(tiny, harmless, helpful, weights):
    chosen = config().pm
    chosen.mixture = MixtureConfig(harmless=harmless, helpful=helpful)
    pairs = stage.weighted_pairs(tiny, mixed(), chosen)
    expected = dict(zip(("harmless", "helpful"), weights))
    assert [p.weight for p in pairs] == pytest.approx([expected[p.source] for p in pairs])
    # Equal scores: every pair costs log 2, so the parts of the loss are the shares themselves.
    zeros, labels = torch.zeros(8, dtype=torch.float64), torch.ones(8, dtype=torch.float64)
    for kind, share in (("harmless", harmless), ("helpful", helpful)):
        own = torch.tensor([p.weight * (p.source == kind) for p in pairs], dtype=torch.float64)
        part = float(pairwise_loss(Pair(zeros, zeros), labels, weights=own))
        assert part == pytest.approx(share / (harmless + helpful) * math.log(2))


def test_a_kind_that_stands_alone_has_the_whole_loss(tiny):
    chosen = config("pm.mixture.harmless=4").pm
    alone = [c for c in mixed() if c.source == "helpful"]
    assert [p.weight for p in stage.weighted_pairs(tiny, alone, chosen)] == [1.0] * 5


@pytest.mark.parametrize("kind", ["harmless", "helpful"])
def test_a_kind_of_weight_zero_is_left_out(kind):
    chosen = settings(f"pm.mixture.{kind}=0")
    found = stage._comparisons(chosen, load_corpus(chosen.data), no_labels())
    assert {c.source for c in found} == {"harmless", "helpful"} - {kind}


# Halves


@pytest.mark.parametrize("seed", range(4))
def test_halves_never_share_a_prompt_family(seed):
    """A family may be of several kinds, and spelt in several ways."""
    found = [comparison(f"Question {n}", source="harmless") for n in range(9)]
    found += [comparison(f"question {n}?", source="helpful") for n in range(3, 12)]
    found += [comparison(f"question  {n}!", a=str(n), source=SOURCE) for n in range(6, 15)]
    first, second = stage.halve(found, seed)
    families = [{family(c.prompt.conversation) for c in half} for half in (first, second)]
    assert not families[0] & families[1]
    assert sorted(map(repr, first + second)) == sorted(map(repr, found))
    # 9 new families, then 3, then 3: the first half takes 5, 2 and 2 of them
    assert list(map(len, families)) == [9, 6]


def test_halves_depend_on_the_seed_alone_and_share_each_kind_evenly():
    found = [c for n in range(10) for c in (mixed()[0], comparison(f"q{n}", source="helpful"))]
    assert stage.halve(found, 1) == stage.halve(found, 1)
    sides = {tuple(c.prompt.id for c in stage.halve(found, seed)[0]) for seed in range(8)}
    assert len(sides) > 1


def test_the_twin_learns_from_other_prompts_than_the_pm(tmp_path, lessons, monkeypatch):
    monkeypatch.setattr(stage, "evaluate", lambda *args: measured(mean=0.0))
    pm, _ = make(tmp_path / "pm", *TWINS, f"pm.pretrain={lessons}")
    assert sorted(p.name for p in (tmp_path / "pm").iterdir() if p.is_dir()) == [
        "model", "model-1", "twin", "twin-1",
    ]  # fmt: skip
    rows = {name: pm.named(name).comparisons.read() for name in ("model", "model-1", "twin")}
    families = {name: {row.prompt[0].text for row in rows[name]} for name in rows}
    assert families["model"] == families["model-1"]
    assert families["model"]
    assert families["twin"]
    assert not families["model"] & families["twin"]
    known = [pm.named(name).metrics.read().pretrained_on for name in ("model", "twin")]
    assert known == [12, 12]
    assert weights_of(pm.named("model")) != weights_of(pm.named("model-1"))


# Members


def measured(mean):
    """What a PM knows, of which only the mean matters."""
    return PMMetrics([], mean, 1.0, None, [], {}, 0)


def test_members_give_mean_and_lower_bound(tiny, hardware, tmp_path, monkeypatch):
    pm = PreferenceModels("pm", "0", tmp_path)
    for n, mean in enumerate((0.2, 0.6)):
        member = pm.named("model" if n == 0 else f"model-{n}")
        tiny.add_adapter(f"saved_{n}", n)
        save_model(tiny, f"saved_{n}", member.path, ScalarHead(tiny.hidden_size, n))
        member.metrics.write(measured(mean))
    pm.settings.write(PMSettings(0.5))
    assert load_reward_model(hardware, tiny, pm, "twin") is None
    reward = load_reward_model(hardware, tiny, pm, "model")
    answers = iter([[[1.0], [-2.0]], [[3.0], [-2.0]]])
    monkeypatch.setattr(rollouts, "score_responses", lambda *args: next(answers))
    trees = [Tree([1], [[2]])] * 2
    # (1 + 3) / 2 less half of their deviation, 1, less the mean of the means, 0.4; and -2 - 0.4
    assert reward.score(trees, 100).tolist() == pytest.approx([1.1, -2.4])


# Metrics


def test_metrics_of_a_source_by_hand(tiny, monkeypatch):
    compared = [
        comparison("q", "aa", "b"),
        comparison("r", "a", "bb"),
        comparison("s", "aa", "b", probability=0.25),
    ]
    log3, log7 = math.log(3), math.log(7)
    given = [[log3, 0.0], [0.0, log3], [log7, 0.0]]
    monkeypatch.setattr(metrics_module, "score_responses", lambda *args: given)
    found = metrics_module.evaluate(tiny, None, {"helpful": compared, "harmless": []}, 100)
    [source] = found.sources
    # probabilities 3/4, 1/4, 7/8 for labels 1, 1, 1/4
    loss = -(math.log(3 / 4) + math.log(1 / 4) + math.log(7 / 8) / 4 + 3 * math.log(1 / 8) / 4) / 3
    # turned round: 3/4 twice, right once (gap 1/4), and 7/8 of which 1/4 came true (gap 5/8)
    ece = (2 * 1 / 4 + 5 / 8) / 3
    # scores above 0 belong to replies of 3 tokens, zeros to replies of 2
    above, square = (2 * log3 + log7) / 3, (2 * log3**2 + log7**2) / 6
    slope = above / 2 / math.sqrt(square - (above / 2) ** 2)
    assert source == HeldOut(
        name="helpful",
        n=3,
        loss=pytest.approx(loss),
        accuracy=pytest.approx(1 / 3),
        ece=pytest.approx(ece),
        longer_wins=pytest.approx(1 / 3),
        length_correlation=pytest.approx(slope),
    )
    assert found.mean == pytest.approx(above / 2)
    assert found.std == pytest.approx(math.sqrt(square - (above / 2) ** 2))
    assert found.length_correlation == pytest.approx(slope)
    assert [part.n for part in found.reliability] == [2, 1]


def test_the_held_out_mean_is_stored_and_taken_off(plain, corpus, hardware):
    pm, chosen = plain
    model = load_model(chosen.model, hardware)
    reward = load_reward_model(hardware, model, pm, "model")
    held_out = [c for part in stage._held_out(corpus).values() for c in part]
    replies = [
        Tree(pair_tree(model, c).prompt, [response])
        for c in held_out
        for response in pair_tree(model, c).responses
    ]
    assert reward.mean == pm.named("model").metrics.read().mean
    assert abs(reward.mean) > 0.01
    assert float(reward.score(replies, 2048).mean()) == pytest.approx(0, abs=1e-3)
    trained = {row.id for row in pm.named("model").comparisons.read()}
    assert not trained & {c.prompt.id for c in held_out}


# What is written


def test_the_card_says_what_it_is_made_of(pretrained, plain, lessons):
    pm, chosen = pretrained
    card = pm.named("model").card.read_text()
    found = pm.named("model").metrics.read()
    assert [source.name for source in found.sources] == ["helpful", "harmless"]
    for source in found.sources:
        assert f"| {source.name} | {source.n} | {source.loss:.3f} |" in card
    for words in (
        "`hh_rlhf`", "`builtin`", f"{found.trained_on['harmless']} comparisons of harmlessness",
        "human labels", "label smoothing: 0.0", "learning rate: 0.01", "epochs: 0.5",
        f"seed: {chosen.seed}", f"{found.mean:.4f}", "base model: Apache-2.0",
        "24 comparisons of a local file", "pre-training: its own licence",
    ):  # fmt: skip
        assert words in card
    assert "local file" not in plain[0].named("model").card.read_text()


def test_the_card_holds_no_path_of_the_machine(pretrained, tmp_path):
    pm, chosen = pretrained
    found = pm.named("model").metrics.read()
    chosen = copy.deepcopy(chosen)
    chosen.model.name = str(tmp_path / "my-base")
    chosen.data.folder = str(tmp_path)
    card = preference_model_card(chosen, found, "code")
    assert "my-base" in card
    assert "data: its own licence" in card
    for path in (tmp_path, pm.path, Path(chosen.pm.pretrain).parent, CONF):
        assert str(path) not in card


def test_weights_are_written_as_safetensors_alone(pretrained):
    names = [path.name for path in pretrained[0].path.rglob("*") if path.is_file()]
    assert {Path(name).suffix for name in names} == {".safetensors", ".json", ".jsonl", ".md"}
    assert names.count("adapter_model.safetensors") == 2


# Pre-training


def weights_of(pm):
    return (pm.path / "adapter_model.safetensors").read_bytes()


def test_pretraining_comes_first_and_changes_the_result(plain, pretrained):
    before, after = (pm.named("model") for pm, _ in (plain, pretrained))
    first = after.pretrained
    history = first.history.read()
    assert len(history) == 24 / 2  # one epoch in batches of two, though pm.epochs is 0.5
    assert history[-1]["loss"] < history[0]["loss"]
    assert weights_of(before) != weights_of(after)
    assert weights_of(first) != weights_of(after)
    assert before.history.read()[0]["loss"] != after.history.read()[0]["loss"]


def test_own_training_begins_with_the_pretrained_weights(pretrained, hardware):
    """The first loss of its own history is that of the saved PM on the first batch."""
    pm, chosen = pretrained
    trained = pm.named("model")
    first = trained.pretrained.path
    model = load_model(chosen.model, hardware)
    model.add_adapter("pm_model", 0, first)
    own = [Comparison.from_row(row) for row in trained.comparisons.read()]
    pairs = stage.weighted_pairs(model, own, chosen.pm)
    seed = seed_of(chosen.seed, "pm_model", "order")
    steps = schedule_batches([p.tree.length for p in pairs], chosen.pm, 2048, seed)
    batch = [pairs[i] for micro in steps[0] for i in micro.records]
    with model.use("pm_model"):
        scores = torch.tensor(
            score_responses(
                model, load_head(first, model.hidden_size), [p.tree for p in batch], 2048
            )
        )
    expected = pairwise_loss(
        Pair(*scores.unbind(1)),
        torch.tensor([p.label for p in batch]),
        weights=torch.tensor([p.weight for p in batch]),
    )
    assert trained.history.read()[0]["loss"] == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize(
    "kind, killed_at", [("pretrained", 11), ("pretrained", 14), ("pretrained", 24), ("whole", 24)]
)
def test_a_killed_run_ends_with_the_same_bits(
    request, lessons, tmp_path, monkeypatch, kind, killed_at
):
    """Killed in pre-training, after it but before a checkpoint, and after a checkpoint."""
    steps, original = [], PreferenceModule.configure_gradient_clipping  # once a step
    overrides = [f"pm.pretrain={lessons}", *([WHOLE] if kind == "whole" else [])]
    whole = request.getfixturevalue(kind)[0].path

    def counted(self, *given, **options):
        steps.append(given)
        if len(steps) == killed_at:
            raise KeyError("killed")
        original(self, *given, **options)

    def seen(self, *given, **options):
        again.append(given)
        original(self, *given, **options)

    folder = tmp_path / "pm"
    with monkeypatch.context() as patch, pytest.raises(KeyError):
        patch.setattr(PreferenceModule, "configure_gradient_clipping", counted)
        make(folder, *overrides)
    killed = PreferenceModels("pm", "0", folder).named("model")
    trained_first = killed.pretrained.history.exists()
    assert trained_first == (killed_at > 12)
    again = []
    with monkeypatch.context() as patch:
        patch.setattr(PreferenceModule, "configure_gradient_clipping", seen)
        make(folder, *overrides)
    names = sorted(p.relative_to(whole).as_posix() for p in whole.rglob("*") if p.is_file())
    assert names == sorted(
        p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()
    )
    for name in names:
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
    own = len((whole / "model" / "history.jsonl").read_text().splitlines())
    assert len(again) == {11: 2 + own, 14: own, 24: own - 10}[killed_at]


# All weights


def test_a_whole_model_is_a_plain_sequence_classifier(whole, hardware):
    """And scores as ours, which is not as the base with a head would."""
    pm, chosen = whole
    folder = pm.named("model").path
    names = {path.name for path in folder.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md"} <= names
    assert "adapter_model.safetensors" not in names
    model = load_model(chosen.model, hardware)
    reward = load_reward_model(hardware, model, pm, "model")
    prompt, reply = model.chat.prompt((human("q"),)), model.chat.response("a reply")
    [ours] = (reward.score([Tree(prompt, [reply])], 2048) + reward.mean).tolist()
    plain = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        theirs = float(plain(torch.tensor([[*prompt, *reply]])).logits)
    assert ours == pytest.approx(theirs, abs=1e-4)
    on_base = [[Tree(prompt, [reply])], 2048]
    [[base]] = score_responses(model, load_head(folder, model.hidden_size), *on_base)
    assert abs(ours - base) > 0.01


def test_a_whole_model_has_learnt_and_says_so(whole):
    model = whole[0].named("model")
    history = [row["loss"] for row in model.pretrained.history.read()]
    assert history[-1] < history[0]
    card = model.card.read_text()
    assert "All weights and a scalar head" in card
    assert "PeftModel" not in card
    assert "LoRA" not in card


def test_a_whole_model_rewards_a_policy_but_starts_no_critic(whole, hardware, tmp_path):
    """The helpful stage of a capable model is the bare base, so that nothing is trained first."""
    pm, chosen = whole
    start = HelpfulAssistant("helpful", "0", tmp_path / "helpful")
    model = load_model(chosen.model, hardware)
    save_model(model, None, start.model)
    inputs = RLInputs(pm, start, None)
    keys = ("stage=rl", "recipe=helpful_rlhf", "rl.iterations=1", "rl.rollout.prompts=4")
    for critic in ("pm", "zero"):
        chosen = config(*keys, f"rl.critic.start={critic}")
        out = PolicyResult("rl", "0", tmp_path / critic)
        out.path.mkdir()
        with track(chosen.tracking, "rl", tmp_path, {}) as tracker:
            job = Job(chosen.hardware, chosen.trainer, tracker)
            given = (stages()["rl"].read(chosen), inputs, out, job)
            if critic == "zero":
                rl_stage.run(*given)
                continue
            with pytest.raises(UserError, match=r"rl\.critic\.start=pm .* adapter"):
                rl_stage.run(*given)
    [row] = out.history.read()
    assert math.isfinite(row["score"])


def test_a_quantised_base_can_not_be_trained_whole(hardware):
    quantised = config(WHOLE, "model.quantization=nf4").model
    with pytest.raises(UserError, match=r"model\.quantization=nf4 .* pm\.full_finetuning=false"):
        own_network(quantised, hardware)


def test_the_content_of_the_file_is_part_of_the_fingerprint(tmp_path, lessons):
    copy = tmp_path / "pairs.jsonl"

    def key(text):
        copy.write_text(text)
        steps = plan(config(f"pm.pretrain={copy}"), Store(tmp_path / "store"), stages())
        return {step.stage.name: step.key for step in steps}

    text = lessons.read_text()
    assert key(text) == key(text)
    changed = key(text.replace("It is 7.", "It was 7."))
    assert changed["pm"] != key(text)["pm"]
    assert changed["helpful"] == key(text)["helpful"]
    with pytest.raises(UserError, match=r"pm\.pretrain="):
        none = config(f"pm.pretrain={tmp_path / 'none.jsonl'}")
        plan(none, Store(tmp_path / "store"), stages())


def test_the_estimate_counts_pretraining(lessons):
    without, more = (costs.pm(config(*keys)) for keys in ((), (f"pm.pretrain={lessons}",)))
    assert more.prompts == without.prompts + 24
    rows = [json.loads(line) for line in lessons.read_text().splitlines()]
    assert more.trained - without.trained == sum(len("".join(row.values())) // 4 for row in rows)


QUESTION = [{"role": "user", "content": "Hi?"}]
REPLY = [{"role": "assistant", "content": "Yes."}]


def pairs_of(path):
    return read_pairs(path, "pm.pretrain", BadRows.strict)


@pytest.mark.parametrize("prompt", ["Hi?", " Human: Hi?\n\nAssistant:", "\n\nHuman: Hi?", QUESTION])
@pytest.mark.parametrize("chosen", ["Yes. ", REPLY, QUESTION + REPLY])
def test_columns_are_texts_or_messages(tmp_path, prompt, chosen):
    path = tmp_path / "pairs.jsonl"
    row = {"prompt": prompt, "chosen": chosen, "rejected": "No."}
    path.write_text("\n" + json.dumps(row) + "\n" + json.dumps({**row, "probability": 0.75}))
    found = [pair.record for pair in pairs_of(path)]
    assert [pair.number for pair in pairs_of(path)] == [2, 3]
    assert [c.prompt.conversation for c in found] == [(human("Hi?"),)] * 2
    assert [(c.a, c.b, c.source) for c in found] == [("Yes.", "No.", SOURCE)] * 2
    assert [c.probability for c in found] == [1.0, 0.75]


def test_what_the_stage_exports_can_be_learnt_from(plain):
    file = plain[0].named("model").comparisons
    own = [Comparison.from_row(row) for row in file.read()]
    again = [pair.record for pair in pairs_of(file.path)]
    assert [(c.a, c.b, c.probability) for c in again] == [(c.a, c.b, c.probability) for c in own]


TALK = to_messages((human("a"), assistant("b"), human("c")))


@pytest.mark.parametrize(
    "row, said",
    [
        ({"prompt": "a", "chosen": "b"}, "lacks the key 'rejected'"),
        ({"prompt": "a", "chosen": " ", "rejected": "c"}, "'chosen' should be a text"),
        ({"prompt": "a", "chosen": 3, "rejected": "c"}, "'chosen' should be a text"),
        ({"prompt": 3, "chosen": "b", "rejected": "c"}, "a text or a list of messages"),
        ({"prompt": " ", "chosen": "b", "rejected": "c"}, "turn 1 is empty"),
        ({"prompt": TALK[:2], "chosen": "b", "rejected": "c"}, "end with the human"),
        ({"prompt": "a", "chosen": TALK, "rejected": "c"}, "'chosen' should end with the"),
        ({"prompt": "z", "chosen": "b", "rejected": TALK[:2]}, "begin with the messages of"),
        ({"prompt": "a", "chosen": ["b"], "rejected": "c"}, "a list of messages"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "probability": 1.5}, "in [0, 1]"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "probability": "x"}, "a number"),
        ({"prompt": "\ud800", "chosen": "b", "rejected": "c"}, "half a surrogate pair"),
        ({"prompt": "a" * 3000, "chosen": "b", "rejected": "c"}, "model.context"),
        ({"prompt": "a", "chosen": "b", "rejected": "c" * 3000}, "model.context"),
    ],
)
def test_a_bad_comparison_is_named_by_file_and_line(tmp_path, tiny, corpus, row, said):
    path = tmp_path / "pairs.jsonl"
    good = {"prompt": "a", "chosen": "b", "rejected": "c"}
    path.write_text(f"{json.dumps(good)}\n\n{json.dumps(row)}\n")
    with pytest.raises(UserError) as caught:
        stage.pretraining(path, corpus, tiny, BadRows.strict)
    assert f"{path}:3" in str(caught.value)
    assert said in str(caught.value)


def test_comparisons_on_held_out_prompts_are_left_out(tmp_path, tiny, corpus, caplog):
    path = tmp_path / "pairs.jsonl"
    prompts = [
        corpus.red_team.test[0].conversation,
        corpus.helpful.validation[0].prompt.conversation,
    ]
    rows = [
        {"prompt": to_messages(talk), "chosen": "b", "rejected": "c"}
        for talk in (*prompts, (human("something else"),))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    [kept] = stage.pretraining(path, corpus, tiny, BadRows.strict)
    assert kept.prompt.conversation == (human("something else"),)
    assert "2 comparisons on held-out prompts" in caplog.text
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[:2]))
    with pytest.raises(UserError, match="held out"):
        stage.pretraining(path, corpus, tiny, BadRows.strict)
    path.write_text("\n")
    with pytest.raises(UserError, match="has no rows"):
        stage.pretraining(path, corpus, tiny, BadRows.strict)
