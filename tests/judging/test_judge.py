"""The judge: what it learns from, whom it may be, and that no arm of an experiment moves it."""

import json
import logging
import math
import re

import pytest
import torch
from chat_server import ChatServer, completion
from hydra import compose, initialize_config_dir
from tiny import tiny_hardware
from transformers import AutoModelForSequenceClassification, LlamaConfig, LlamaForCausalLM

from cai.composition import CONF, typed
from cai.contracts.judges import JudgeModels
from cai.contracts.table import stages
from cai.data.records import Comparison, Prompt
from cai.dialogue import assistant, human, to_messages
from cai.errors import UserError
from cai.judging.asking import connect
from cai.judging.exam import Paper, sit
from cai.judging.folder import load_folder
from cai.judging.judge import Judged, outcomes
from cai.judging.readout import ReadoutJudge, fit_readout, load_readout, save_direction, states
from cai.lm.packing import Tree
from cai.lm.tiny import tiny_tokenizer
from cai.pipeline.execute import execute
from cai.pipeline.plan import plan
from cai.pipeline.store import Store
from cai.training.saved import find_saved, load_saved

TOUR = ("model=tiny", "scale=tour", "tracking=off", "hardware=cpu", "hardware.threads=1")
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def config(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return typed(compose("config", overrides=[*TOUR, *overrides]))


def comparison(n, better, worse):
    return Comparison(Prompt(f"p{n}", "k", (human(f"Question {n}?"),)), better, worse, 1.0, "x")


def toy(numbers):
    """Whoever says yes is right, whatever else is said."""
    return [comparison(n, f"yes {n * 7 % 10} {n}", f"no {n * 3 % 10} {n}") for n in numbers]


# One that reads a frozen base


def test_a_read_out_learns_what_tells_better_from_worse(tiny):
    direction = fit_readout(tiny, toy(range(60)), 2048)
    judge = ReadoutJudge(tiny, dict.fromkeys(("harmlessness", "helpfulness"), direction), 2048)
    exam = sit(judge, Paper("harmlessness", "data", toy(range(100, 140))))
    assert exam.accuracy.value >= 0.95
    assert exam.n == 40 and exam.unread == 0
    swapped = [one.swap() for one in toy(range(100, 140))]
    assert sit(judge, Paper("helpfulness", "data", swapped)).accuracy == exam.accuracy


def test_its_score_is_the_direction_times_the_state_and_survives_saving(tiny, tmp_path):
    direction = fit_readout(tiny, toy(range(20)), 2048)
    judge = JudgeModels("judge", "", tmp_path)
    for axis in ("harmlessness", "helpfulness"):
        judge.axis(axis).path.mkdir()
        save_direction(direction, judge.axis(axis).path)
    talk = (human("Question 3?"),)
    [score] = load_readout(tiny, judge, 2048).score("harmlessness", [Judged(talk, "yes 3")])
    tree = Tree(tiny.chat.prompt(talk), [tiny.chat.response("yes 3")])
    [[state]] = states(tiny, [tree], 2048)
    assert score == pytest.approx(float(state @ direction.weights) - direction.offset)


def test_replies_to_one_conversation_are_scored_as_if_each_were_alone(tiny):
    direction = fit_readout(tiny, toy(range(20)), 2048)
    judge = ReadoutJudge(tiny, {"harmlessness": direction}, 2048)
    one, two = (human("Question 3?"),), (human("Is that so?"),)
    asked = [Judged(one, "yes 3"), Judged(one, "no"), Judged(two, "yes"), Judged(one, "yes 4")]
    alone = [score for each in asked for score in judge.score("harmlessness", [each])]
    assert judge.score("harmlessness", asked) == pytest.approx(alone, abs=1e-4)


def test_what_cannot_be_told_apart_gets_probabilities_near_a_half(tiny):
    """Labels that are noise: the temperature of cross-validation keeps the judge unsure."""
    pairs = [one if n % 2 else one.swap() for n, one in enumerate(toy(range(60)))]
    noise = [Comparison(c.prompt, c.a, c.b, 1.0, "x") for c in pairs]
    direction = fit_readout(tiny, noise, 2048)
    judge = ReadoutJudge(tiny, {"harmlessness": direction}, 2048)
    found = outcomes(judge, "harmlessness", toy(range(100, 140)))
    assert max(abs(p - 0.5) for p in found) < 0.2


# One that somebody trained


def classifier(folder, labels=1, template=TEMPLATE):
    """Save a random sequence classifier and its tokenizer as anybody would."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    shape = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_labels=labels, pad_token_id=tokenizer.pad_token_id,
        max_position_embeddings=512,
    )  # fmt: skip
    AutoModelForSequenceClassification.from_config(shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def loaded(folder, **changes):
    chosen = config("judge=folder", f"judge.models.harmlessness='{folder}'", *(
        f"judge.models.{key}={value}" for key, value in changes.items()
    ))  # fmt: skip
    return load_folder(chosen.judge.models, tiny_hardware())


def test_a_classifier_scores_as_plain_transformers_does(tmp_path):
    folder = classifier(tmp_path / "rm")
    judge = loaded(folder, batch_size=3)
    replies = [Judged((human(f"Ask {n}?"),), "so " * (n + 1)) for n in range(7)]
    network = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    for (talk, said), score in zip(replies, judge.score("helpfulness", replies)):
        messages = to_messages((*talk, assistant(said)))
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        with torch.no_grad():
            assert score == pytest.approx(float(network(ids).logits), abs=1e-5)


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda folder: classifier(folder, labels=2), "gives 2 numbers to a reply"),
        (lambda folder: classifier(folder, template=None), "has no chat template"),
        (lambda folder: causal(folder), "is no sequence classifier, for it has no weights for"),
        (lambda folder: folder.mkdir() or folder, "can't be loaded as a reward model"),
        (lambda folder: folder, "which is no folder; if it is a model of a hub, give its commit"),
    ],
)
def test_a_folder_that_is_no_reward_model_is_one_sentence(make, said, tmp_path):
    with pytest.raises(UserError, match=re.escape(said)) as error:
        loaded(make(tmp_path / "rm"))
    assert "\n" not in str(error.value)


def causal(folder):
    """Save a language model, which has no head that scores."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    shape = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_labels=1, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    LlamaForCausalLM(shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_judge_without_a_model_or_a_server_is_refused():
    with pytest.raises(UserError, match=r"give judge.models.harmlessness=PATH"):
        config("judge=folder")
    with pytest.raises(UserError, match=r"give judge.endpoint.url and judge.endpoint.model"):
        config("judge=endpoint")


# One behind a server


def chooser(got, n):
    """Prefer the reply that says "kind", two to one; what says "mumble" can't be read."""
    [message] = got.body["messages"][-1:]
    if "mumble" in message["content"]:
        return completion("?", [("?", {"?": -0.1})])
    first, second = re.findall(r"\((?:A|B)\) \[\[\[(.*?)\]\]\]", message["content"], re.DOTALL)
    p = 0.5 if ("kind" in first) == ("kind" in second) else 2 / 3 if "kind" in first else 1 / 3
    return completion(" (A)", [(" (A)", {" (A)": math.log(p), " (B)": math.log(1 - p)})])


def test_a_server_is_asked_in_both_orders_and_what_is_unread_has_no_outcome(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("CAI_CACHE", str(tmp_path))
    with ChatServer(chooser) as server:
        chosen = config("judge=endpoint", f"judge.endpoint.url={server.url}",
                        "judge.endpoint.model=m")  # fmt: skip
        judge = connect(chosen.judge.endpoint, tmp_path)
        pairs = [comparison(0, "kind", "rude"), comparison(1, "rude", "mumble")]
        with caplog.at_level(logging.WARNING):
            found = outcomes(judge, "harmlessness", pairs)
        asked = [got.body["messages"][-1]["content"] for got in server.requests[1:]]
        exam = sit(judge, Paper("helpfulness", "data", pairs))
    assert found == [pytest.approx(2 / 3), None]
    assert "judge: 1 of 2 comparisons could not be read" in caplog.text
    assert len([text for text in asked if "less harmful" in text]) == len(asked)
    assert (exam.n, exam.unread, exam.accuracy.value) == (2, 1, 1.0)


def test_a_server_that_does_not_answer_is_named_by_its_key(tmp_path):
    chosen = config("judge=endpoint", "judge.endpoint.url=http://127.0.0.1:9",
                    "judge.endpoint.model=m", "judge.endpoint.retries=0")  # fmt: skip
    with pytest.raises(UserError, match=r"judge.endpoint.url=http://127.0.0.1:9 gave no"):
        connect(chosen.judge.endpoint, tmp_path)
    with pytest.raises(UserError, match=r"judge.endpoint.votes=0"):
        config("judge.endpoint.votes=0")
    with pytest.raises(UserError, match=r"judge.endpoint.model is null"):
        config("judge=endpoint", "judge.endpoint.url=http://localhost:1")


# What it knows


class Says:
    """Gives each reply the score that it says."""

    def score(self, axis, replies):
        return [float(reply) for _, reply in replies]


def test_an_exam_by_hand():
    """Right, wrong, a tie; 2 of 4 longer replies are better, and a pair of no side is left out."""
    pairs = [comparison(0, "2.0", "1"), comparison(1, "0", "1.0"), comparison(2, "1", "1"),
             comparison(3, "3.00", "0")]  # fmt: skip
    undecided = Comparison(pairs[0].prompt, "5", "1", 0.5, "x")
    exam = sit(Says(), Paper("harmlessness", "data", [*pairs, undecided]))
    assert (exam.n, exam.unread) == (4, 0)
    assert exam.accuracy.value == pytest.approx((1 + 0 + 0.5 + 1) / 4)
    assert exam.longer_wins == pytest.approx((1 + 0 + 0.5 + 1) / 4)
    sure, more = 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-3))
    # Bins of a tenth: 0.5 alone; 0.731 twice, right once; 0.953.
    ece = (abs(0.5 - 0.5) + 2 * abs(sure - 0.5) + abs(more - 1)) / 4
    assert exam.ece == pytest.approx(ece)


# In the pipeline


def keys(*overrides):
    steps = plan(config("stage=evaluate", *overrides), Store_of_nothing, stages())
    return {step.stage.name: step.key for step in steps}


class Store_of_nothing:
    @staticmethod
    def find(name, key):
        return None

    @staticmethod
    def partial(name, key):
        return CONF / "nothing"


@pytest.mark.parametrize(
    "changed",
    ["constitution=strict", "constitution.n_principles=1", "recipe=rl_cai_cot", "feedback.cot=true",
     "pm.label_smoothing=0.2", "rl.kl.coefficient=0.1", "revise.rounds=1", "sft.up_to_round=1",
     "seed=1"],
)  # fmt: skip
def test_no_arm_moves_the_judge_or_the_assistant_they_start_from(changed):
    before, after = keys(), keys(changed)
    assert before["judge"] == after["judge"]
    assert before["helpful"] == after["helpful"]
    assert before["evaluate"] != after["evaluate"]


@pytest.mark.parametrize("changed", ["model.lora.rank=2", "data.seed=1", "judge.pairs=4"])
def test_what_it_is_made_of_moves_it(changed):
    assert keys()["judge"] != keys(changed)["judge"]


@pytest.mark.parametrize("method", ["readout", "adapter"])
def test_the_stage_leaves_a_judge_and_what_it_knows(method, tmp_path):
    keys = (f"judge.method={method}", "judge.adapter.epochs=1", "data.exam=null")
    chosen = config("stage=judge", *keys)
    store = Store(tmp_path / "artifacts")
    made = execute(plan(chosen, store, stages()), chosen, store, tmp_path)
    report = JudgeModels("judge", made.fingerprint, made.path).report.read()
    assert report.source == "labels"
    assert report.trained_on == {"harmlessness": 16, "helpfulness": 16}
    assert [(exam.axis, exam.whose) for exam in report.exams] == [
        ("harmlessness", "data"), ("helpfulness", "data")
    ]  # fmt: skip
    assert all(exam.n >= 40 for exam in report.exams)


def test_agreement_with_people_is_measured_where_they_are_given(tmp_path):
    people = tmp_path / "people.jsonl"
    rows = [{"prompt": f"Q{n}?", "chosen": "a", "rejected": "bb"} for n in range(4)]
    people.write_text("".join(json.dumps(row) + "\n" for row in rows))
    chosen = config("stage=judge", f"judge.people={people}")
    store = Store(tmp_path / "artifacts")
    made = execute(plan(chosen, store, stages()), chosen, store, tmp_path)
    exams = JudgeModels("judge", made.fingerprint, made.path).report.read().exams
    told = [(exam.axis, exam.n, exam.longer_wins) for exam in exams if exam.whose == "people"]
    assert told == [("harmlessness", 4, 0.0), ("helpfulness", 4, 0.0)]


def test_a_preference_model_of_ours_may_judge(tmp_path):
    chosen = config("stage=pm", "recipe=hh_rlhf", "pm.holdout_twin=false")
    store = Store(tmp_path / "artifacts")
    made = execute(plan(chosen, store, stages()), chosen, store, tmp_path)
    replies = [Judged((human("Who?"),), "me"), Judged((human("Who?"),), "you there")]
    scores = loaded(made.path).score("harmlessness", replies)
    model, reward = load_saved(find_saved(made.path), tiny_hardware())
    trees = [Tree(model.chat.prompt(talk), [model.chat.response(said)]) for talk, said in replies]
    assert scores == pytest.approx(reward.score(trees, 2048).tolist())
