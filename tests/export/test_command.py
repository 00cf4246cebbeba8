"""What can be wrong with an export, one sentence each; cards; and uploads to a hub of our own."""

import json

import pytest
from export.finished import finish, result_of
from export.hub import running

import cai.export.take as take_module
from cai.errors import UserError
from cai.export.__main__ import main
from cai.export.hub import HfApi, Repository, push


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return finish(tmp_path_factory.mktemp("run"))


def failed(capsys, *words):
    """Run the command, which should fail with one sentence; return it."""
    assert main([str(word) for word in words]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    return said


def test_a_system_that_is_not_there(run, tmp_path, capsys):
    said = failed(capsys, run, "--system", "dpo_cai", "--to", tmp_path / "it")
    assert "dpo_cai is not in evaluate-" in said
    assert "helpful, sl_cai, pm, pm-1, twin, rl_cai, rl_cai@5" in said
    assert list(tmp_path.iterdir()) == []


def test_a_system_whose_result_is_gone(tmp_path, capsys):
    run = finish(tmp_path, stage="rl")
    rl, sft = result_of(run, "rl"), result_of(run, "sft")
    sft.rename(tmp_path / "elsewhere")
    said = failed(capsys, rl, "--system", "sl_cai", "--to", tmp_path / "it")
    assert f"gone: {sft.name}" in said


@pytest.mark.parametrize("there", ["nothing", "an empty folder", "an unfinished run"])
def test_a_folder_that_is_no_run(tmp_path, capsys, there):
    folder = tmp_path / "run"
    if there != "nothing":
        folder.mkdir()
    if there == "an unfinished run":
        (folder / "metrics.jsonl").write_text("{}\n")
    said = failed(capsys, folder, "--system", "rl_cai", "--to", tmp_path / "it")
    assert "holds no finished result" in said


def test_a_run_whose_evaluation_is_gone(run, tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "result.json").write_text(json.dumps({"artifact": str(tmp_path / "evaluate-0")}))
    said = failed(capsys, folder, "--system", "rl_cai", "--to", tmp_path / "it")
    assert "holds no finished result" in said


def test_a_folder_that_exists(run, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    for words in (["--system", "rl_cai"], ["--data"]):
        assert "is there already" in failed(capsys, run, *words, "--to", tmp_path / "full")
    assert (tmp_path / "full" / "mine").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert main([str(run), "--system", "helpful", "--to", str(tmp_path / "empty")]) == 0


def test_a_folder_that_can_not_be_made(run, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    said = failed(capsys, run, "--data", "--to", tmp_path / "file" / "below")
    assert "can't be written" in said


def test_weights_that_were_changed_are_not_passed_on(tmp_path, capsys):
    run = finish(tmp_path, stage="helpful")
    weights = result_of(run, "helpful") / "model" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    said = failed(capsys, result_of(run, "helpful"), "--system", "helpful", "--to", tmp_path / "it")
    assert "adapter_model.safetensors has changed since it was made" in said


def test_settings_of_another_version(tmp_path, capsys):
    run = finish(tmp_path, stage="helpful")
    record = result_of(run, "helpful") / "artifact.json"
    record.write_text(record.read_text().replace('"rank"', '"width"'))
    said = failed(capsys, result_of(run, "helpful"), "--system", "helpful", "--to", tmp_path / "it")
    assert "describes model in a way that this version can't read" in said
    assert "stage=helpful" in said


def test_an_export_that_fails_leaves_nothing(run, tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(take_module, "assistant_card", fail)
    assert main([str(run), "--system", "rl_cai", "--to", str(tmp_path / "it")]) == 130
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [["--system", "a", "--data"], [], ["--data", "--merged"], ["--system", "a", "--public"],
     ["--system", "a", "--merged", "--adapter"], ["--system", "a", "--adapter", "--dtype", "bf16"]],
)  # fmt: skip
def test_options_that_do_not_go_together(run, tmp_path, words, capsys):
    with pytest.raises(SystemExit):
        main([str(run), *words, "--to", str(tmp_path / "it")])
    capsys.readouterr()


# Cards


def test_a_card_says_where_it_comes_from_how_good_it_is_and_what_is_weak(run, tmp_path):
    main([str(run), "--system", "rl_cai", "--to", str(tmp_path / "it")])
    text = (tmp_path / "it" / "README.md").read_text()
    assert "| Elo of harmlessness, by the judge | 55 | [20, 90] |" in text
    assert "without a reason | 0.12 | [0.00, 0.30] |" in text
    assert "ranks 0.83 [0.70, 0.90] of 40 unseen comparisons rightly" in text
    assert "- It is small." in text
    assert "- A note." in text
    assert "`harm-general`" in text
    assert "rl.kl.coefficient: 0.02" in text
    for stage in ("helpful", "revise", "sft", "feedback", "pm", "rl"):
        record = json.loads((result_of(run, stage) / "artifact.json").read_text())
        assert f"| {stage} | `{record['fingerprint']}` | 1.5 |" in text
    assert "| judge |" not in text, "it was not made from that"
    assert str(run.parents[1]) not in text


def test_a_card_of_what_was_not_evaluated_says_so(run, tmp_path):
    result = result_of(run, "sft")
    assert main([str(result), "--system", "sl_cai", "--to", str(tmp_path / "it")]) == 0
    text = (tmp_path / "it" / "README.md").read_text()
    assert "It was not evaluated: how harmless" in text
    assert "| on held-out prompts |" not in text
    assert "feedback.prompts" not in text


def test_a_preference_models_card_says_the_same_of_it(run, tmp_path):
    main([str(run), "--system", "pm", "--to", str(tmp_path / "it")])
    text = (tmp_path / "it" / "README.md").read_text()
    # Wilson's interval of 0.7 of 9.
    assert "ranks 0.70 [0.38, 0.90] of 9 held-out comparisons of kind harmless rightly" in text
    assert "choosing the longer reply ranks 0.50" in text
    for head in ("Use", "Licence", "Known weaknesses", "Base", "Constitution", "Recipe", "Lineage"):
        assert text.count(f"\n## {head}\n") == 1
    assert "`least-harmful`" in text
    assert "pm.label_smoothing: 0.0" in text
    assert f"| feedback | `{result_of(run, 'feedback').name[9:]}" in text
    assert str(run.parents[1]) not in text


def test_who_may_read_the_folder_may_read_the_weights(run, tmp_path):
    main([str(run), "--system", "helpful", "--adapter", "--to", str(tmp_path / "it")])
    shared = (tmp_path / "it").stat().st_mode & 0o666
    files = [path for path in (tmp_path / "it").rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {shared}


# Uploads


@pytest.fixture
def hub(monkeypatch):
    with running() as made:
        monkeypatch.setattr(
            "cai.export.hub.HfApi", lambda: HfApi(endpoint=made.url, token="hf_test")
        )
        yield made


@pytest.mark.parametrize("public", [False, True])
def test_what_is_uploaded_is_private_unless_told_otherwise(hub, tmp_path, public):
    (tmp_path / "README.md").write_text("It.")
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "train.jsonl").write_text("{}\n")
    address = push(tmp_path, Repository("owner/name", "dataset", public))
    assert address.endswith("/datasets/owner/name")
    assert hub.there == {"owner/name": not public}
    assert {token for _, token, _ in hub.told} == {"Bearer hf_test"}
    [commit] = [body for path, _, body in hub.told if "/commit/" in path]
    sent = [json.loads(line) for line in commit.splitlines()]
    assert {line["value"]["path"] for line in sent if line["key"] == "file"} == {
        "README.md", "rows/train.jsonl"}  # fmt: skip


def test_a_public_repository_is_not_written_to_by_mistake(hub, tmp_path):
    hub.there["owner/name"] = False
    with pytest.raises(UserError, match="is there already and public"):
        push(tmp_path, Repository("owner/name", "model", False))
    assert hub.told == []


def test_a_private_repository_is_written_to_again(hub, tmp_path):
    hub.there["owner/name"] = True
    (tmp_path / "README.md").write_text("It.")
    push(tmp_path, Repository("owner/name", "model", False))
    assert not any(path == "/api/repos/create" for path, *_ in hub.told)
    with pytest.raises(UserError, match="is there already and private"):
        push(tmp_path, Repository("owner/name", "model", True))


def test_no_token(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("cai.export.hub.get_token", lambda: None)
    said = failed(capsys, run, "--data", "--to", tmp_path / "it", "--push", "owner/name")
    assert "needs a token of the hub" in said
    assert not (tmp_path / "it").exists(), "said before any work"


def test_a_name_that_is_no_repository(run, tmp_path, capsys):
    said = failed(capsys, run, "--data", "--to", tmp_path / "it", "--push", "name")
    assert "write OWNER/NAME" in said


def test_a_hub_that_does_not_answer_leaves_the_export(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("cai.export.hub.get_token", lambda: "hf_test")
    nowhere = "http://127.0.0.1:9"
    monkeypatch.setattr("cai.export.hub.HfApi", lambda: HfApi(endpoint=nowhere, token="hf_test"))
    said = failed(capsys, run, "--data", "--to", tmp_path / "it", "--push", "owner/name")
    assert "--push=owner/name failed" in said
    assert (tmp_path / "it" / "README.md").is_file()


def test_an_adapter_whose_base_nobody_has_is_not_uploaded(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("cai.export.hub.get_token", lambda: "hf_test")
    said = failed(
        capsys, run, "--system", "rl_cai", "--adapter", "--to", tmp_path / "it", "--push", "o/n"
    )
    assert "nobody could load it: use --merged" in said
