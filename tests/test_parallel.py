"""Several processes make what one makes: shares, sums, PPO, and the whole command."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import test_dpo
import test_ppo
import test_training
import test_whole
import tiny
import torch
from safetensors.torch import load_file

from cai import parallel
from cai.config import (
    Accelerator,
    Precision,
    Quantization,
    Strategy,
)
from cai.dialogue import human
from cai.errors import UserError
from cai.launchers import Processes
from cai.lm.device import processes_of, torch_device
from cai.lm.generate import Sampling, generate
from cai.lm.heads import own_network
from cai.lm.load import load_model
from cai.lm.packing import Tree
from cai.lm.score import token_logprobs

HERE = Path(__file__).parent
TWO = Processes("cpu", 2, 1)
TOUR = ("model=tiny", "scale=tour", "tracking=off", "hardware=ddp", "hardware.accelerator=cpu",
        "hardware.threads=1")  # fmt: skip
PPO = {
    "rollout.prompts": 7, "iterations": 2, "optimizer.lr": 1e-3, "critic.optimizer.lr": 1e-3
}  # fmt: skip
"""Seven replies, so that two processes have unequal shares."""


def start(*command):
    """Start a command that starts the other process itself, as Lightning does."""
    names = ("LOCAL_RANK", "NODE_RANK", "RANK", "WORLD_SIZE", "MASTER_PORT")
    kept = {key: value for key, value in os.environ.items() if key not in names}
    return subprocess.Popen(
        [sys.executable, *command],
        env={**kept, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def two(*command):
    process = start(*command)
    text, _ = process.communicate(timeout=300)
    return process.returncode, text


@contextmanager
def connected():
    torch.set_num_threads(1)
    with parallel.connected(TWO, "same"), parallel.together(shared=True):
        yield


def shares(out):
    """Run in both processes: write what each of them sees."""
    alone = parallel.world_size()
    with connected():
        with parallel.together(shared=False):
            inside = parallel.world_size()
        nested = parallel.spread("ab", lambda own: [len(parallel.spread("xyz", list)) for _ in own])
        seen = {
            "alone": [alone, inside],
            "world": parallel.world_size(),
            "own": list(parallel.share("abcde")),
            "all": parallel.spread("abcde", lambda own: [x.upper() for x in own]),
            "nothing": parallel.spread([], list),
            "nested": nested,
            "total": parallel.all_reduce([1.0, float(parallel.rank())]),
            "told": [parallel.broadcast(f"{n} by {parallel.rank()}") for n in range(2)],
            "zero": parallel.is_global_zero(),
        }
        (Path(out) / f"{parallel.rank()}.json").write_text(json.dumps(seen))


def differ(out):
    """Run in both processes, which disagree on what to run."""
    try:
        with parallel.connected(TWO, os.environ.get("LOCAL_RANK", "0")):
            pass
    except UserError as error:
        name = os.environ.get("LOCAL_RANK", "0")
        (Path(out) / f"{name}.txt").write_text(str(error))


def supervised():
    """Five records a step, so that one process has a micro-batch that does not count."""
    return tiny.tiny_supervised(batch_size=5, epochs=1)


def trainings(folder, strategy=Strategy.ddp):
    """Train by every method; return the weights and the numbers of the steps."""
    hardware = tiny.tiny_hardware(devices=parallel.world_size(), strategy=strategy)
    found = {}
    model, module = test_training.train(hardware, supervised(), folder / "sft", 150)
    found["sft"] = (test_training.weights(model, "a"), module.history)
    model, _, module = test_training.train_pm(
        hardware, test_training.pm_settings(supervised()), folder / "pm", tokens=200
    )
    found["pm"] = (test_training.weights(model, "pm"), module.history)
    model, _, history = test_dpo.train(hardware, supervised(), folder / "dpo")
    found["dpo"] = (test_training.weights(model, "policy"), history)
    model, module = test_ppo.run(hardware, folder / "ppo", **PPO)
    for name in ("policy", "critic"):
        found[name] = (test_ppo.weights(model, name), module.history)
    return found


def train(out, strategy=Strategy.ddp):
    """Run in both processes: train, and write the weights."""
    with connected():
        found = trainings(Path(out) / str(parallel.rank()), strategy)
        torch.save(found, Path(out) / f"{parallel.rank()}.pt")


def train_sharded(out):
    """Run in both processes: the same with one base between them."""
    train(out, Strategy.shard)


def train_whole(out):
    """Run in both processes: train all weights."""
    with connected():
        hardware = tiny.tiny_hardware(devices=2)
        model, _ = test_whole.train(
            hardware, tiny.tiny_supervised(), Path(out) / f"{parallel.rank()}"
        )
        torch.save(test_whole.flat(model, "all"), Path(out) / f"{parallel.rank()}.pt")


def read_sharded(out):
    """Run in both processes: sample shares of unequal length, and score."""
    with connected():
        found = sampled(tiny.tiny_hardware(strategy=Strategy.shard))
        (Path(out) / f"{parallel.rank()}.json").write_text(json.dumps(found))


def sampled(hardware):
    """Sample with an adapter, each process its share, then score all of it."""
    model = load_model(tiny.tiny_config(), hardware)
    model.add_adapter("a", 1)
    tiny.randomise(model, "a")
    prompts = [model.chat.prompt((human("why " * n),)) for n in range(1, 8)]

    def sample(own):
        chosen = [prompts[i] for i in own]
        with model.sampling("a") as network:
            made = generate(network, chosen, own, Sampling(20), model.stop_ids, batch_size=2)
        return [(reply.tokens, reply.logprobs) for reply in made]

    replies = parallel.spread(range(7), sample)
    trees = [Tree(p, [tokens]) for p, (tokens, _) in zip(prompts, replies)]
    with model.use("a") as network:
        scored = token_logprobs(network, trees, 100)
    sharded = any("DTensor" in type(p).__name__ for p in model.network.parameters())
    return {
        "tokens": [tokens for tokens, _ in replies],
        "logprobs": [x for _, own in replies for x in own],
        "scored": [float(x) for [row] in scored for x in row],
        "sharded": sharded,
    }


def test_shares_and_sums(tmp_path):
    code, text = two(str(HERE / "test_parallel.py"), "shares", str(tmp_path))
    assert code == 0, text
    first, second = (json.loads((tmp_path / f"{n}.json").read_text()) for n in (0, 1))
    assert (first.pop("own"), second.pop("own")) == (["a", "c", "e"], ["b", "d"])
    assert (first.pop("zero"), second.pop("zero")) == (True, False)
    assert first == second
    assert first == {
        "alone": [1, 1],
        "world": 2,
        "all": list("ABCDE"),
        "nothing": [],
        "nested": [3, 3],
        "total": [2.0, 1.0],
        "told": ["0 by 0", "1 by 0"],
    }


def test_one_process_does_everything():
    assert (parallel.world_size(), parallel.rank(), parallel.is_global_zero()) == (1, 0, True)
    with parallel.connected(Processes("cpu", 1, 1), ""), parallel.together(shared=True):
        assert parallel.share([1, 2, 3]) == [1, 2, 3]
        assert parallel.spread([1, 2], lambda own: [10 * n for n in own]) == [10, 20]
        assert parallel.all_reduce([1.5]) == [1.5]
        assert parallel.broadcast("x") == "x"


def test_processes_that_run_different_things_are_refused(tmp_path):
    two(str(HERE / "test_parallel.py"), "differ", str(tmp_path))
    for name in ("0", "1"):
        assert "do not run the same" in (tmp_path / f"{name}.txt").read_text()


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return trainings(tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module", params=["train", "train_sharded"])
def trained(request, tmp_path_factory, one):
    """The same trainings by two processes, with two bases or with one, and by one process."""
    out = tmp_path_factory.mktemp("trained")
    code, text = two(str(HERE / "test_parallel.py"), request.param, str(out))
    assert code == 0, text
    return *(torch.load(out / f"{n}.pt") for n in (0, 1)), one


def test_a_sharded_base_samples_and_scores(tmp_path):
    """The processes have unequal shares and replies of unequal length."""
    code, text = two(str(HERE / "test_parallel.py"), "read_sharded", str(tmp_path))
    assert code == 0, text
    first, second = (json.loads((tmp_path / f"{n}.json").read_text()) for n in (0, 1))
    assert first == second
    alone = sampled(tiny.tiny_hardware())
    assert (first.pop("sharded"), alone.pop("sharded")) == (True, False)
    assert first.pop("tokens") == alone.pop("tokens")
    for name, values in alone.items():
        assert first[name] == pytest.approx(values, abs=1e-4)


def test_what_cannot_be_sharded_is_refused(monkeypatch):
    monkeypatch.setattr(parallel, "world_size", lambda: 2)
    hardware = tiny.tiny_hardware(strategy=Strategy.shard)
    with pytest.raises(UserError, match=r"model.quantization=nf4 can't be sharded"):
        load_model(tiny.tiny_config(quantization=Quantization.nf4), hardware)
    with pytest.raises(UserError, match=r"pm.full_finetuning=false"):
        own_network(tiny.tiny_config(), hardware)


@pytest.mark.parametrize("method", ["sft", "pm", "dpo", "policy", "critic"])
def test_two_processes_learn_what_one_learns(trained, method):
    """Token weights, whitening, score statistics and KL are those of the whole batch."""
    (first, history), (second, _), (alone, numbers) = (found[method] for found in trained)
    assert torch.equal(first, second)
    torch.testing.assert_close(first, alone, atol=1e-4, rtol=0)
    for ours, theirs in zip(history, numbers, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-5)


def test_two_processes_train_all_weights_as_one_does(hardware, tmp_path):
    code, text = two(str(HERE / "test_parallel.py"), "train_whole", str(tmp_path))
    assert code == 0, text
    first, second = (torch.load(tmp_path / f"{n}.pt") for n in (0, 1))
    alone, _ = test_whole.train(hardware, tiny.tiny_supervised(), tmp_path / "alone")
    assert torch.equal(first, second)
    torch.testing.assert_close(first, test_whole.flat(alone, "all"), atol=1e-4, rtol=0)


def test_fewer_replies_than_processes_is_said(hardware, monkeypatch):
    monkeypatch.setattr(parallel, "world_size", lambda: 7)
    with pytest.raises(UserError, match=r"rl\.rollout\.prompts=6 is too few for 7 processes"):
        test_ppo.make(hardware)


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    hardware = tiny.tiny_hardware(accelerator=Accelerator.auto)
    assert torch_device(hardware) == torch.device("cuda", 0)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert torch_device(hardware) == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError, match=r"hardware.devices=3, but this machine has 2 GPUs"):
        torch_device(hardware)


def test_more_devices_than_there_are_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    hardware = tiny.tiny_hardware(accelerator=Accelerator.gpu, devices=8)
    with pytest.raises(UserError, match=r"hardware.devices=8, but this machine has 2 GPUs"):
        processes_of(hardware)


def test_what_a_device_cannot_do_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **options: False)
    hardware = tiny.tiny_hardware(accelerator=Accelerator.gpu, precision=Precision.bf16_mixed)
    with pytest.raises(UserError, match=r"precision=bf16_mixed, but this GPU has no bfloat16"):
        processes_of(hardware)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    hardware = tiny.tiny_hardware(accelerator=Accelerator.mps, strategy=Strategy.shard)
    with pytest.raises(UserError, match=r"strategy=shard needs processors or CUDA devices"):
        processes_of(hardware)


def test_what_torchrun_has_started_counts(monkeypatch):
    values = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "3", "RANK": "4"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    assert processes_of(tiny.tiny_hardware()) == Processes("cpu", 3, 2)
    assert not parallel.is_global_zero()


def finished(outputs):
    return {
        path.name.rpartition("-")[0]: path
        for path in (outputs / "artifacts").iterdir()
        if (path / "artifact.json").exists()
    }


def checksums(outputs):
    paths = finished(outputs).items()
    return {name: json.loads((p / "artifact.json").read_text())["files"] for name, p in paths}


@pytest.fixture(scope="module")
def by_one(tmp_path_factory):
    """The results of the command by one process."""
    alone = tmp_path_factory.mktemp("one")
    command = [sys.executable, "-m", "cai", *TOUR, "hardware.devices=1", f"outputs={alone}"]
    subprocess.run(command, check=True, capture_output=True)
    return alone


@pytest.fixture(scope="module")
def by_two(tmp_path_factory):
    """The results of the command by two processes, and what they say."""
    outputs = tmp_path_factory.mktemp("two")
    code, text = two("-m", "cai", *TOUR, f"outputs={outputs}")
    assert code == 0, text
    return outputs, text


@pytest.fixture(scope="module")
def by_two_sharded(tmp_path_factory):
    """The same with one base between them."""
    outputs = tmp_path_factory.mktemp("sharded")
    code, text = two("-m", "cai", *TOUR, "hardware.strategy=shard", f"outputs={outputs}")
    assert code == 0, text
    return outputs, text


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def assert_same(ours, theirs):
    """Compare what JSON holds; numbers that come of trained weights up to their rounding."""
    if isinstance(theirs, float):
        assert ours == pytest.approx(theirs, abs=1e-3)
        return
    assert type(ours) is type(theirs)
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        ours, theirs = list(ours.values()), list(theirs.values())
    if not isinstance(theirs, list):
        assert ours == theirs
        return
    for mine, other in zip(ours, theirs, strict=True):
        assert_same(mine, other)


DATA = {"revise": ["revisions"], "feedback": ["pairs", "labels"],
        "evaluate": ["replies", "matches", "persona"]}  # fmt: skip


@pytest.mark.parametrize("several", ["by_two", "by_two_sharded"])
def test_the_command_makes_what_one_process_makes(several, by_one, request):
    (outputs, text), alone = request.getfixturevalue(several), by_one
    ours, theirs = finished(outputs), finished(alone)
    assert set(ours) == set(theirs)
    assert {ours[name].name for name in theirs} == {path.name for path in theirs.values()}
    for stage, files in DATA.items():
        for file in files:
            made, other = (found[stage] / f"{file}.jsonl" for found in (ours, theirs))
            assert rows(other)
            assert_same(rows(made), rows(other))
    weights = sorted(alone.rglob("*.safetensors"))
    assert len(weights) == 8  # two of them are the judge
    for path in weights:
        mine, other = load_file(outputs / path.relative_to(alone)), load_file(path)
        for name in other:
            torch.testing.assert_close(mine[name], other[name], atol=1e-4, rtol=0)
    assert text.count("stage=evaluate") == 1, "only the leader speaks"
    assert len(list((outputs / "runs").iterdir())) == 1


def child_of(process):
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return next(int(n) for n in children if "hydra.job" in Path(f"/proc/{n}/cmdline").read_text())


def lives(process):
    """Tell whether a process runs; one that has ended is there until somebody asks for its code."""
    stat = Path(f"/proc/{process}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="processes are found by /proc")
@pytest.mark.parametrize("victim, stage", [("first", "rl"), ("second", "rl"), ("second", "revise")])
def test_a_killed_process_takes_the_other_along_and_the_run_goes_on(
    by_two, tmp_path, victim, stage
):
    outputs, _ = by_two
    process = start("-m", "cai", *TOUR, f"outputs={tmp_path}")
    until = time.monotonic() + 200
    while not list(tmp_path.glob(f"artifacts/{stage}-*.partial")) and time.monotonic() < until:
        time.sleep(0.02)
    second = child_of(process)
    os.kill(process.pid if victim == "first" else second, signal.SIGKILL)
    process.communicate(timeout=60)  # ends when both have let go of the output
    assert process.returncode != 0
    assert not lives(second)
    assert stage not in finished(tmp_path)
    code, text = two("-m", "cai", *TOUR, f"outputs={tmp_path}")
    assert code == 0, text
    assert checksums(tmp_path) == checksums(outputs)


def test_nobody_waits_for_a_lost_process_longer_than_minutes():
    assert timedelta(minutes=1) < parallel.PATIENCE <= timedelta(minutes=15)


def test_a_process_that_never_comes_is_said(monkeypatch):
    def launch(processes):
        raise torch.distributed.DistStoreError("Timed out after 600 seconds waiting for clients.")

    monkeypatch.setattr(parallel, "_launch", launch)
    with pytest.raises(UserError, match="start the same command again"), connected():
        pass


def test_a_sweep_is_refused(tmp_path):
    code, text = two("-m", "cai", "-m", *TOUR, "seed=0,1", f"outputs={tmp_path}")
    assert code != 0
    assert "several processes work on one run at a time" in text


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2])
