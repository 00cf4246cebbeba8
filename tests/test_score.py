"""Scoring anyone's replies: the same scores as in training, resumable, bad rows named."""

import json
import subprocess
import sys

import pytest
from tiny import randomise, tiny_config, tiny_hardware

import cai.score as command
import cai.scorer as module
from cai.config import Dtype
from cai.contracts.preferences import PreferenceModels
from cai.data.records import Comparison, Prompt
from cai.dialogue import assistant, from_messages, human, to_text
from cai.errors import UserError
from cai.files import write_json
from cai.jsonl import Rows
from cai.lm.heads import ScalarHead, save_model
from cai.lm.load import load_model
from cai.lm.packing import Tree
from cai.pipeline.plan import to_plain
from cai.pipeline.store import Store, fingerprint
from cai.results.labels import PMMetrics, PMSettings, PreferenceRow
from cai.score import main, score_file
from cai.scorer import load_scorer, read_dialogue
from cai.training.reward import load_reward_model

MEAN, LOWER = 0.25, 0.5


@pytest.fixture(scope="module")
def pm(tmp_path_factory):
    """A result as the pm stage leaves it: a PM of two members, and a twin."""
    hardware = tiny_hardware()
    config = tiny_config()
    model = load_model(config, hardware)
    store = Store(tmp_path_factory.mktemp("store"))
    recipe = {"settings": {"model": to_plain(config)}, "content": {}}
    key = fingerprint(recipe)
    made = PreferenceModels("pm", key, store.partial("pm", key))
    for n, name in enumerate(("model", "model-1", "twin")):
        adapter = f"saved_{n}"
        model.add_adapter(adapter, n)
        randomise(model, adapter, seed=n, std=0.3)
        folder = made.named(name)
        save_model(model, adapter, folder.path, ScalarHead(model.hidden_size, n))
        folder.metrics.write(PMMetrics([], MEAN * (n + 1), 1.0, None, [], {}, 0))
    made.settings.write(PMSettings(LOWER))
    return store.commit("pm", key, recipe, {}).path


def rows_of(n):
    talks = [{"messages": [
        {"role": "user", "content": f"Question {k} " + "and more " * (k % 5)},
        {"role": "assistant", "content": f"Reply {k}."},
    ], "id": k} for k in range(0, n, 2)]  # fmt: skip
    plain = [{"prompt": f"Question {k}", "response": "No. " * (k % 7)} for k in range(1, n, 2)]
    return talks + plain


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def by_reward_model(pm, name, hardware, rows):
    model = load_model(tiny_config(), hardware)
    reward = load_reward_model(hardware, model, PreferenceModels("pm", "a" * 64, pm), name)
    trees = []
    for row in rows:
        talk, reply = read_dialogue(row)
        trees.append(Tree(model.chat.prompt(talk), [model.chat.response(reply)]))
    return reward.score(trees, hardware.micro_tokens).tolist(), reward


@pytest.mark.parametrize("name", ["model", "twin"])
def test_scores_are_those_of_the_reward_model(pm, hardware, tmp_path, name):
    rows = rows_of(9)
    source = write(tmp_path / "in.jsonl", rows)
    folder = pm if name == "model" else pm / name
    assert main(["--pm", str(folder), str(source), str(tmp_path / "out.jsonl")]) == 0
    got = read(tmp_path / "out.jsonl")
    assert [{k: v for k, v in row.items() if k != "score"} for row in got] == rows
    expected, reward = by_reward_model(pm, name, hardware, rows)
    assert [row["score"] for row in got] == pytest.approx(expected, abs=1e-5)
    assert len(reward.members) == {"model": 2, "twin": 1}[name]
    assert reward.mean == {"model": 1.5 * MEAN, "twin": 3 * MEAN}[name]  # of (1, 2) and of (3,)
    assert len({row["score"] for row in got}) == len(got)


def test_one_member_of_several_has_its_own_mean(pm, hardware, tmp_path):
    rows = rows_of(4)
    both, _ = by_reward_model(pm, "model", hardware, rows)
    one, _ = by_reward_model(pm, "model-1", hardware, rows)
    source = write(tmp_path / "in.jsonl", rows)
    assert main(["--pm", str(pm / "model-1"), str(source), str(tmp_path / "out.jsonl")]) == 0
    got = [row["score"] for row in read(tmp_path / "out.jsonl")]
    assert got == pytest.approx(one, abs=1e-5)
    assert got != pytest.approx(both, abs=1e-3)


def test_the_base_may_be_read_in_another_precision(pm, tmp_path):
    """As others read what is exported; the precision of its training is what counts otherwise."""
    source, scores = write(tmp_path / "in.jsonl", rows_of(6)), {}
    for dtype in (None, "fp32", "bf16"):
        words = [] if dtype is None else [f"--dtype={dtype}"]
        assert main(["--pm", str(pm), *words, str(source), str(tmp_path / f"{dtype}.jsonl")]) == 0
        scores[dtype] = [row["score"] for row in read(tmp_path / f"{dtype}.jsonl")]
    assert scores[None] == scores["fp32"] != scores["bf16"]
    assert scores["bf16"] == pytest.approx(scores["fp32"], abs=0.05)
    assert load_scorer(pm, "cpu").key != load_scorer(pm, "cpu", dtype=Dtype.bf16).key


@pytest.mark.parametrize("calls", [0, 1, 2])
def test_a_killed_run_goes_on_where_it_stopped(pm, tmp_path, monkeypatch, calls):
    source = write(tmp_path / "in.jsonl", rows_of(20))
    scorer = load_scorer(pm, "cpu")
    whole, parts = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl"
    assert score_file(scorer, source, whole, 6) == 20
    scored, asked = module.Scorer.scored, []

    def dies(self, rows):
        if len(asked) == calls:
            raise KeyboardInterrupt
        asked.append(len(rows))
        return scored(self, rows)

    monkeypatch.setattr(module.Scorer, "scored", dies)
    with pytest.raises(KeyboardInterrupt):
        score_file(scorer, source, parts, 6)
    assert not parts.exists()
    partial = tmp_path / "parts.jsonl.partial"
    assert len(read(partial)) == 6 * calls
    with partial.open("a") as file:  # a kill in the middle of a write
        file.write('{"score": 9}\n{"prompt": "Question')
    monkeypatch.setattr(
        module.Scorer, "scored", lambda self, r: asked.append(len(r)) or scored(self, r)
    )
    score_file(scorer, source, parts, 6)
    assert asked == [6, 6, 6, 2]
    assert parts.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "in.jsonl",
        "parts.jsonl",
        "whole.jsonl",
    ]


@pytest.mark.parametrize("change", ["rows", "pm", "size"])
def test_an_unfinished_file_of_something_else_is_not_continued(pm, tmp_path, monkeypatch, change):
    source, out = write(tmp_path / "in.jsonl", rows_of(6)), tmp_path / "out.jsonl"
    first = load_scorer(pm, "cpu")
    monkeypatch.setattr(command, "_score_rest", lambda *_: exit("killed"))
    with pytest.raises(SystemExit):
        score_file(first, source, out, 2)
    (tmp_path / "out.jsonl.partial").write_text('{"score": 9}\n' * 2)
    monkeypatch.undo()
    if change == "rows":
        write(source, rows_of(8))
    second = load_scorer(pm / "twin" if change == "pm" else pm, "cpu")
    score_file(second, source, out, 3 if change == "size" else 2)
    assert all(row["score"] != 9 for row in read(out))
    assert len(read(out)) == (8 if change == "rows" else 6)


BAD = [
    (b"{", "is not JSON"),
    (b'{"prompt": "\xff", "response": "a"}', "not UTF-8"),
    (b'{"prompt": "\\ud800", "response": "a"}', "no UTF-8 text"),
    ([1], "a JSON object with keys"),
    ({"prompt": "a"}, "needs 'messages', or 'prompt' and 'response'"),
    ({"response": "a"}, "a text or a list of messages"),
    ({"prompt": "a", "response": 3}, "'response' must be a text"),
    ({"prompt": " ", "response": "a"}, "turn 1 is empty"),
    ({"messages": []}, "no turns"),
    ({"messages": "a"}, "a list of messages"),
    ({"messages": [{"role": "user", "content": "a"}]}, "must be the assistant's"),
    ({"messages": [{"role": "system", "content": "a"}]}, "message 1 needs a role"),
    ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
      "response": "c"}, "must end with the human's turn"),
    ({"prompt": "a " * 3000, "response": "b"}, "context"),
    ({"prompt": "a", "response": "b " * 3000}, "prompt and reply have"),
]  # fmt: skip


def test_bad_rows_are_named_by_line_and_nothing_is_written(pm, tmp_path, capsys):
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row, _ in BAD]
    good = json.dumps(rows_of(1)[0]).encode()
    source = tmp_path / "in.jsonl"
    source.write_bytes(b"\n".join([good, b"", *lines, good]) + b"\n")
    assert main(["--pm", str(pm), str(source), str(tmp_path / "out.jsonl")]) == 1
    said = capsys.readouterr().err.strip().split("\n")
    assert len(said) == len(BAD)
    for number, (sentence, (_, reason)) in enumerate(zip(said, BAD), start=3):
        assert sentence.startswith(f"{source}:{number} ")
        assert reason in sentence
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_only_the_first_of_many_bad_rows_are_named(pm, tmp_path, capsys):
    source = write(tmp_path / "in.jsonl", [{}] * 50)
    assert main(["--pm", str(pm), str(source), str(tmp_path / "out.jsonl")]) == 1
    said = capsys.readouterr().err.strip().split("\n")
    assert len(said) == 21
    assert said[-1] == "and 30 more"


def test_all_ways_to_write_a_dialogue_are_one():
    messages = [
        {"role": "user", "content": "One"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
    ]
    talk = from_messages(messages)
    expected = (talk, "four")
    reply = {"role": "assistant", "content": "four"}
    assert read_dialogue({"messages": [*messages, reply]}) == expected
    assert read_dialogue({"messages": messages, "response": "four"}) == expected
    assert read_dialogue({"prompt": messages, "response": " four\n"}) == expected
    assert read_dialogue({"prompt": to_text(talk), "response": "four"}) == expected
    opened = to_text(talk) + "\n\nAssistant:"
    assert read_dialogue({"prompt": opened, "response": "four"}) == expected
    assert read_dialogue({"prompt": "One", "response": ""}) == ((human("One"),), "")
    assert assistant("two") in talk


def test_a_file_may_be_scored_in_its_place_and_again(pm, tmp_path):
    source = write(tmp_path / "in.jsonl", [*rows_of(3), {**rows_of(1)[0], "score": "old"}])
    for _ in range(2):
        assert main(["--pm", str(pm), str(source), str(source)]) == 0
    assert all(isinstance(row["score"], float) for row in read(source))
    empty = write(tmp_path / "empty.jsonl", [])
    assert main(["--pm", str(pm), str(empty), str(tmp_path / "none.jsonl")]) == 0
    assert (tmp_path / "none.jsonl").read_bytes() == b""


def test_what_is_no_pm_or_no_folder_is_said(pm, tmp_path, capsys):
    source = write(tmp_path / "in.jsonl", rows_of(2))
    cases = {
        ("--pm", str(tmp_path), str(source), str(tmp_path / "o")): "is no preference model",
        ("--pm", str(pm / "none"), str(source), str(tmp_path / "o")): "is no preference model",
        ("--pm", str(pm), str(source), str(tmp_path / "no/o")): "no such folder to write to",
        ("--pm", str(pm), str(tmp_path / "no"), str(tmp_path / "o")): "does not exist",
    }
    for arguments, said in cases.items():
        assert main(arguments) == 1
        assert said in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["--pm", str(pm), "--batch", "0", str(source), str(tmp_path / "o")])
    assert stop.value.code == 2


def test_a_base_that_has_changed_is_refused(pm, tmp_path):
    from cai.lm.tiny import tiny_model, tiny_tokenizer

    base = tmp_path / "base"
    tiny_model(256).save_pretrained(base)
    tiny_tokenizer().save_pretrained(base)
    record = json.loads((pm / "artifact.json").read_text())
    config = {**record["recipe"]["settings"]["model"], "source": "folder", "path": str(base)}
    copy = tmp_path / "pm"
    import shutil

    shutil.copytree(pm, copy)
    recipe = {"settings": {"model": config}, "content": {"model.path": "0" * 64}}
    write_json(copy / "artifact.json", {**record, "recipe": recipe})
    with pytest.raises(UserError, match="has changed since"):
        load_scorer(copy, "cpu")


def test_the_command_runs_by_its_name(pm, tmp_path):
    source, out = write(tmp_path / "in.jsonl", rows_of(3)), tmp_path / "out.jsonl"
    words = [sys.executable, "-m", "cai.score", "--pm", str(pm), "--hardware", "cpu"]
    done = subprocess.run([*words, source, out], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(read(out)) == 3


def test_exported_comparisons_have_the_columns_that_preference_trainers_read(tmp_path):
    from datasets import load_dataset

    prompt = Prompt("p", "k", (human("Hi"), assistant("Yes?"), human("Why?")))
    pairs = [Comparison(prompt, "one", "two", p, "harmless") for p in (0.9, 0.2, 0.5)]
    file = Rows(tmp_path / "comparisons.jsonl", PreferenceRow)
    file.write(pair.to_row() for pair in pairs)
    data = load_dataset("json", data_files=str(file.path), split="train", cache_dir=str(tmp_path))
    assert {"prompt", "chosen", "rejected", "probability"} <= set(data.column_names)
    assert data["probability"] == [0.9, 0.8, 0.5]
    for row, best in zip(data, ("one", "two", "one")):
        assert [turn["role"] for turn in row["prompt"]] == ["user", "assistant", "user"]
        assert row["chosen"] == [{"role": "assistant", "content": best}]
        assert row["rejected"][0]["role"] == "assistant"
        assert row["probability"] >= 0.5
