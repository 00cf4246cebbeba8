"""Several processes make what one makes: shares, sums, PPO, and the whole command."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import test_ppo
import torch
from safetensors.torch import load_file

from cai import parallel
from cai.config import Accelerator, HardwareConfig
from cai.errors import UserError
from cai.lm.device import torch_device

HERE = Path(__file__).parent
TOUR = ("model=tiny", "scale=tour", "tracking=off", "hardware=cpu", "hardware.threads=1")
PPO = {"rollouts": 7, "iterations": 2, "lr": 1e-3, "critic.lr": 1e-3}
"""Seven replies, so that two processes have unequal shares."""


def start(*command):
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *command],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def two(*command):
    process = start(*command)
    text, _ = process.communicate(timeout=300)
    return process.returncode, text


def shares(out):
    """Run in both processes: write what each of them sees."""
    parameters = [torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))]
    alone = parallel.world()
    with parallel.connected(), parallel.together(shared=True):
        if parallel.rank() == 1:
            parameters[0].grad = torch.tensor([1.0, 2.0])
        parameters[1].grad = torch.tensor([3.0 + parallel.rank()])
        parallel.add_up_gradients(parameters)
        with parallel.together(shared=False):
            inside = parallel.world()
        seen = {
            "alone": [alone, inside],
            "world": parallel.world(),
            "own": list(parallel.share("abcde")),
            "all": parallel.spread("abcde", lambda own: [x.upper() for x in own]),
            "nothing": parallel.spread([], list),
            "total": parallel.total([1.0, float(parallel.rank())]),
            "told": parallel.tell(f"by {parallel.rank()}"),
            "grads": [p.grad.tolist() for p in parameters],
            "leads": parallel.leads(),
        }
        (Path(out) / f"{parallel.rank()}.json").write_text(json.dumps(seen))


def ppo(out):
    """Run in both processes: train, and let the leader write the weights."""
    hardware = HardwareConfig(accelerator=Accelerator.cpu, threads=1, micro_tokens=2048)
    torch.set_num_threads(1)
    with parallel.connected(), parallel.together(shared=True):
        folder = Path(out) / str(parallel.rank())
        folder.mkdir()
        model, module = test_ppo.run(hardware, folder, **PPO)
        (Path(out) / "history.json").write_text(json.dumps(module.history))
        found = {name: test_ppo.weights(model, name) for name in ("policy", "critic")}
        torch.save(found, Path(out) / f"{parallel.rank()}.pt")


def test_shares_and_sums(tmp_path):
    code, text = two(str(HERE / "test_parallel.py"), "shares", str(tmp_path))
    assert code == 0, text
    first, second = (json.loads((tmp_path / f"{n}.json").read_text()) for n in (0, 1))
    assert (first.pop("own"), second.pop("own")) == (["a", "c", "e"], ["b", "d"])
    assert (first.pop("leads"), second.pop("leads")) == (True, False)
    assert first == second
    assert first == {
        "alone": [1, 1],
        "world": 2,
        "all": list("ABCDE"),
        "nothing": [],
        "total": [2.0, 1.0],
        "told": "by 0",
        "grads": [[1.0, 2.0], [7.0]],
    }


def test_one_process_does_everything():
    assert (parallel.world(), parallel.rank(), parallel.leads()) == (1, 0, True)
    with parallel.connected(), parallel.together(shared=True):
        assert parallel.share([1, 2, 3]) == [1, 2, 3]
        assert parallel.spread([1, 2], lambda own: [10 * n for n in own]) == [10, 20]
        assert parallel.total([1.5]) == [1.5]
        assert parallel.tell("x") == "x"


def test_ppo_learns_the_same_from_the_whole_batch(hardware, tmp_path):
    """Whitening, score statistics, KL and gradients are those of all rollouts together."""
    code, text = two(str(HERE / "test_parallel.py"), "ppo", str(tmp_path))
    assert code == 0, text
    model, module = test_ppo.run(hardware, tmp_path, **PPO)
    first, second = (torch.load(tmp_path / f"{n}.pt") for n in (0, 1))
    for name in ("policy", "critic"):
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], test_ppo.weights(model, name), atol=2e-5, rtol=0)
    for ours, theirs in zip(
        json.loads((tmp_path / "history.json").read_text()), module.history, strict=True
    ):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-5)


def test_fewer_replies_than_processes_is_said(hardware, monkeypatch):
    monkeypatch.setattr(parallel, "world", lambda: 7)
    with pytest.raises(UserError, match="rollouts=6 is too few for 7 processes"):
        test_ppo.make(hardware)


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    hardware = HardwareConfig(accelerator=Accelerator.auto, threads=1, micro_tokens=2048)
    assert torch_device(hardware) == torch.device("cuda", 0)
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("WORLD_SIZE", "3"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    assert torch_device(hardware) == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError, match="this machine has 2 GPUs"):
        torch_device(hardware)


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
def both(tmp_path_factory):
    """The results of the command by two processes and by one."""
    outputs = tmp_path_factory.mktemp("two")
    code, text = two("-m", "cai", *TOUR, f"outputs={outputs}")
    assert code == 0, text
    alone = tmp_path_factory.mktemp("one")
    command = [sys.executable, "-m", "cai", *TOUR, "stage=rl", f"outputs={alone}"]
    subprocess.run(command, check=True, capture_output=True)
    return outputs, alone, text


def test_the_command_makes_what_one_process_makes(both):
    outputs, alone, text = both
    ours, theirs = finished(outputs), finished(alone)
    assert set(ours) == {*theirs, "evaluate"}
    assert {ours[name].name for name in theirs} == {path.name for path in theirs.values()}
    replies = [found["feedback"] / "pairs.jsonl" for found in (ours, theirs)]
    assert replies[0].read_text() == replies[1].read_text()
    weights = sorted(alone.rglob("*.safetensors"))
    assert len(weights) == 6
    for path in weights:
        mine, other = load_file(outputs / path.relative_to(alone)), load_file(path)
        for name in other:
            torch.testing.assert_close(mine[name], other[name], atol=1e-4, rtol=0)
    assert text.count("stage=evaluate") == 1, "only the leader speaks"
    assert len(list((outputs / "runs").iterdir())) == 1


def test_a_killed_run_ends_with_the_same_checksums(both, tmp_path):
    outputs, _, _ = both
    process = start("-m", "cai", *TOUR, f"outputs={tmp_path}")
    until = time.monotonic() + 200
    while not list(tmp_path.glob("artifacts/rl-*.partial")) and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=100)
    assert "rl" not in finished(tmp_path)
    code, text = two("-m", "cai", *TOUR, f"outputs={tmp_path}")
    assert code == 0, text
    assert checksums(tmp_path) == checksums(outputs)


def test_a_sweep_is_refused(tmp_path):
    code, text = two("-m", "cai", "-m", *TOUR, "seed=0,1", f"outputs={tmp_path}")
    assert code != 0
    assert "torchrun works on one run at a time" in text


if __name__ == "__main__":
    {"shares": shares, "ppo": ppo}[sys.argv[1]](sys.argv[2])
