"""Other comparisons in an evaluation: people's choices and a model under the constitution."""

import json
import logging
import math
import re

import pytest
from chat_server import ChatServer, completion
from hydra import compose, initialize_config_dir

from cai.composition import CONF, typed
from cai.config import BadRows
from cai.contracts.policies import Evaluation
from cai.contracts.table import stages
from cai.data.records import Prompt
from cai.data.sources import load_corpus
from cai.dialogue import human
from cai.errors import UserError
from cai.evaluation.opinions import (
    NON_EVASIVE,
    human_matches,
    judged_matches,
    ratings,
)
from cai.evaluation.systems import Context, System, held_out_prompts
from cai.labelling.answers import Answer
from cai.pipeline.execute import execute
from cai.pipeline.plan import plan
from cai.pipeline.store import Store
from cai.results.systems import Match, Reply

TOUR = ("stage=evaluate", "model=tiny", "scale=tour", "tracking=off", "hardware=cpu",
        "hardware.threads=1")  # fmt: skip
SYSTEMS = [System(name, f"m-{name}", None) for name in ("helpful", "sl_cai", "rl_cai")]
NAMES = [system.name for system in SYSTEMS]
PROMPTS = [Prompt(f"p{n}", "k", (human(f"Q{n}?"),)) for n in range(40)]


def config(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return typed(compose("config", overrides=[*TOUR, *overrides]))


def settings(*overrides):
    return stages()["evaluate"].read(config(*overrides))


def context(systems):
    """What judges outside the model are given: no base is needed."""
    return Context(settings(), config().hardware, None, systems)


def choice(a="rl_cai", b="sl_cai", prompt="p0", axis="harmlessness", said="a"):
    return {"a": a, "b": b, "prompt_id": prompt, "axis": axis, "choice": said}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# People


def test_people_rate_on_the_same_scale_as_others(tmp_path):
    """With half an imagined win each way 25 to 15 is 25.5 to 15.5, and ties count half."""
    rows = [choice(prompt=f"p{n}", said="a" if n < 20 else "tie" if n < 30 else "b")
            for n in range(40)]  # fmt: skip
    rows.append(choice("helpful", "sl_cai", axis="helpfulness", said=0.75))
    matches = human_matches(write(tmp_path / "c.jsonl", rows), SYSTEMS, PROMPTS, BadRows.strict)
    assert {m.judge for m in matches} == {"human"}
    found = ratings(matches, SYSTEMS, 200)
    rated = found["rl_cai"]["harmlessness_elo_human"]
    assert rated.value == pytest.approx(400 * math.log10(25.5 / 15.5))
    assert rated.low < rated.value < rated.high
    assert found["sl_cai"]["harmlessness_elo_human"].value == 0
    assert set(found["helpful"]) == {"helpfulness_elo_human"}
    helpful = found["helpful"]["helpfulness_elo_human"]
    assert helpful.value == pytest.approx(400 * math.log10(1.25 / 0.75))
    assert helpful.low is None  # one prompt has no spread


def test_choices_that_leave_out_the_system_at_zero_are_refused(tmp_path):
    path = write(tmp_path / "c.jsonl", [choice(a="rl_cai", b="helpful", axis="helpfulness")])
    with pytest.raises(UserError, match=r"helpfulness give no scale: the anchor 'sl_cai'"):
        human_matches(path, SYSTEMS, PROMPTS, BadRows.strict)


# A model


class Says:
    """Finds the reply shown first better with a given probability, by what both say."""

    def __init__(self, table):
        self.table, self.asked = table, []

    def ask(self, questions):
        self.asked += questions
        return [Answer(self.table.get(question.replies, [0.5]), 1) for question in questions]


def reply(system, prompt, text, kind="red_team"):
    return Reply(
        system=system, set=kind, prompt_id=prompt, kind="k", sample=0,
        messages=(human(f"Ask {prompt}?"),), response=text, style="compliance", refusal=False,
        evasive=False, boilerplate=False,
    )  # fmt: skip


def test_both_orders_are_asked_and_averaged(caplog):
    rows = [reply(name, prompt, f"{name} {prompt}") for name in ("sl_cai", "rl_cai")
            for prompt in ("p0", "p1", "p2")]  # fmt: skip
    rows += [reply(name, "p9", "helps", "helpful") for name in ("sl_cai", "rl_cai")]
    judge = Says({
        ("sl_cai p0", "rl_cai p0"): [0.9],  # biased towards what comes first
        ("rl_cai p0", "sl_cai p0"): [0.7],
        ("sl_cai p1", "rl_cai p1"): [0.2, 0.4],  # two chains
        ("rl_cai p1", "sl_cai p1"): [0.7],
        ("rl_cai p2", "sl_cai p2"): [],  # could not be read
    })  # fmt: skip
    with caplog.at_level(logging.WARNING):
        matches = judged_matches(context(SYSTEMS[1:]), judge, rows)
    assert [(m.judge, m.axis, m.first, m.second) for m in matches] == [
        ("constitution", "harmlessness", "sl_cai", "rl_cai")
    ] * 2
    assert [m.prompt_id for m in matches] == ["p0", "p1"]
    # (.9 + 1 - .7) / 2 and (.3 + 1 - .7) / 2
    assert [m.outcome for m in matches] == pytest.approx([0.6, 0.3])
    assert "constitution: 1 of 3 comparisons could not be read" in caplog.messages
    assert len(judge.asked) == 6
    assert all(question.principle.text.endswith(NON_EVASIVE) for question in judge.asked)
    for forward, backward in zip(judge.asked[::2], judge.asked[1::2]):
        assert forward.principle == backward.principle
        assert forward.replies == backward.replies[::-1]


def test_a_rating_that_has_no_scale_is_left_out_and_said(caplog):
    matches = [Match("constitution", "c", "harmlessness", "p", "helpful", "rl_cai", 1.0)]
    with caplog.at_level(logging.WARNING):
        assert ratings(matches, SYSTEMS, 10) == {name: {} for name in NAMES}
    assert "harmlessness_elo_constitution is left out" in caplog.text


def chooser(got, n):
    """Prefer the reply that says "kind", two to one."""
    [message] = got.body["messages"][-1:]
    first, second = re.findall(r"\((?:A|B)\) \[\[\[(.*?)\]\]\]", message["content"], re.DOTALL)
    p = 0.5 if ("kind" in first) == ("kind" in second) else 2 / 3 if "kind" in first else 1 / 3
    return completion(" (A)", [(" (A)", {" (A)": math.log(p), " (B)": math.log(1 - p)})])


# All of it


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """Return a whole evaluation of the smallest kind, with every judge and instrument."""
    root = tmp_path_factory.mktemp("judged")
    chosen = config()
    asked = held_out_prompts(chosen.evaluate.prompts, load_corpus(chosen.data))["red_team"]
    people = write(root / "people.jsonl", [choice("helpful", "helpful_rlhf", prompt.id, said=0.8)
                                           for prompt in asked])  # fmt: skip
    rated = write(root / "rated.jsonl", [
        {"transcript": f"\n\nHuman: Question {n}?\n\nAssistant: Reply {n}.", "rating": n % 5}
        for n in range(30)
    ])  # fmt: skip
    patch = pytest.MonkeyPatch()
    patch.setenv("CAI_CACHE", str(root / "cache"))
    with ChatServer(chooser) as server:
        chosen = config(
            "recipe=helpful_rlhf", "helpful.fine_tune=false", "rl.iterations=1",
            f"evaluate.opinions.human_choices={people}", f"evaluate.harmfulness.ratings={rated}",
            "judge=endpoint", f"judge.endpoint.url={server.url}", "judge.endpoint.model=judge",
        )  # fmt: skip
        store = Store(root / "artifacts")
        result = execute(plan(chosen, store, stages()), chosen, store, root)
    patch.undo()
    people.write_text(people.read_text().replace("0.8", "0.7"))
    assert plan(chosen, store, stages())[-1].key != result.fingerprint  # an edit is noticed
    return Evaluation(result.stage, result.fingerprint, result.path)


def test_an_evaluation_with_every_judge_has_all_numbers(evaluated, tmp_path):
    [helpful, trained] = [system.metrics for system in evaluated.summary.read().systems]
    assert trained["harmlessness_elo_human"].value == pytest.approx(
        400 * math.log10((0.2 * 4 + 0.5) / (0.8 * 4 + 0.5))
    )
    assert helpful["harmlessness_elo"].value == 0
    for metrics in (helpful, trained):
        assert 0 <= metrics["persona_consistency"].value <= 1
        assert math.isfinite(metrics["absolute_harmfulness"].value)
        assert math.isfinite(metrics["absolute_harmfulness_greedy"].value)
    rows = [json.loads(line) for line in evaluated.replies.path.read_text().splitlines()]
    assert all(("harmfulness" in r) == (r["set"] == "red_team") for r in rows)
    assert not [r for r in rows if "tokens" in r]
    judges = {m.judge for m in evaluated.matches.read()}
    assert judges == {"judge", "constitution", "human"}
    assert (evaluated.path / "harmfulness" / "adapter_model.safetensors").exists()
    assert not list(evaluated.path.glob("sampled*"))
