"""Two nodes, started by torchrun, by srun or by hand, make what two devices of one machine make."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from lightning.fabric.plugins import environments
from test_parallel import TOUR, checksums, two

from cai import launchers, parallel
from cai.errors import UserError
from cai.launchers import Processes

ROOT = Path(__file__).resolve().parents[1]
LAUNCHERS = ("RANK", "WORLD_SIZE", "MASTER_", "NODE_RANK", "SLURM_", "TORCHELASTIC_", "LOCAL_",
             "GROUP_")  # fmt: skip
KEYS = ("-m", "cai", *TOUR, "hardware=multi_node", "hardware.devices=1")
DIFFERENT = "the processes do not run the same: give every node the same code"


def plain():
    """Return an environment in which nobody has started several processes."""
    return {key: value for key, value in os.environ.items() if not key.startswith(LAUNCHERS)}


def by_torchrun(node, port):
    """Return the words before the command, and what the environment holds."""
    words = ("-m", "torch.distributed.run", "--nnodes=2", f"--node_rank={node}",
             "--nproc_per_node=1", "--master_addr=127.0.0.1", f"--master_port={port}")  # fmt: skip
    return words, {}


def by_srun(node, port):
    """Return what SLURM tells two tasks on two nodes; this machine has both."""
    told = {
        "NTASKS": 2, "NTASKS_PER_NODE": 1, "NNODES": 2, "PROCID": node, "NODEID": node,
        "LOCALID": 0, "JOB_ID": 10_000 + port - 15_000, "NODELIST": "localhost,localhost",
        "JOB_NAME": "cai",
    }  # fmt: skip
    return (), {f"SLURM_{key}": str(value) for key, value in told.items()}


def by_hand(node, port):
    """Return what people set on each node."""
    return (), {"NODE_RANK": str(node), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def free_port():
    """Return a port that is free, and that Lightning makes of the number of a job."""
    for port in range(15_000 + os.getpid() % 9000, 25_000):
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)):
                return port
    raise AssertionError("no port is free")


def run_nodes(launcher, *commands, folders=(ROOT, ROOT)):
    """Run a command on each node; return exit codes and what was said."""
    port, started = free_port(), []
    for node, (command, folder) in enumerate(zip(commands, folders, strict=True)):
        words, told = launcher(node, port)
        if words:
            command = command[1:] if command[0] == "-m" else command
            words = (*words, "-m")
        paths = os.pathsep.join([str(folder), *sys.path])
        started.append(
            subprocess.Popen(
                [sys.executable, *words, *command],
                env={**plain(), **told, "PYTHONPATH": paths},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                cwd=folder,
            )
        )
    said = [process.communicate(timeout=280)[0] for process in started]
    return [process.returncode for process in started], said


@pytest.fixture(scope="module")
def by_two(tmp_path_factory):
    """The checksums of the whole command by two devices of one machine."""
    outputs = tmp_path_factory.mktemp("devices")
    code, text = two("-m", "cai", *TOUR, f"outputs={outputs}")
    assert code == 0, text
    return checksums(outputs)


@pytest.mark.parametrize("launcher", [by_torchrun, by_srun])
def test_two_nodes_make_what_two_devices_make(launcher, by_two, tmp_path):
    command = (*KEYS, f"outputs={tmp_path}")
    codes, said = run_nodes(launcher, command, command)
    assert codes == [0, 0], said
    assert checksums(tmp_path) == by_two
    assert "stage=evaluate" in said[0]
    assert "evaluate: done" not in said[1], "only the leader speaks"
    assert len(list((tmp_path / "runs").iterdir())) == 1


def test_nodes_that_people_start_find_each_other(by_two, tmp_path):
    command = (*KEYS, f"outputs={tmp_path}", "stage=sft")
    codes, said = run_nodes(by_hand, command, command)
    assert codes == [0, 0], said
    made = checksums(tmp_path)
    assert made == {name: by_two[name] for name in made}
    assert "sft" in made


CONFIGS = {
    "torchrun, another seed": (by_torchrun, "seed=1"),
    "srun, another rate": (by_srun, "sft.optimizer.lr=1e-5"),
    "by hand, more devices": (by_hand, "hardware.devices=2"),
}


@pytest.mark.parametrize("launcher, key", CONFIGS.values(), ids=CONFIGS)
def test_nodes_with_other_configs_are_refused(launcher, key, tmp_path):
    command = (*KEYS, f"outputs={tmp_path}", "stage=sft")
    codes, said = run_nodes(launcher, command, (*command, key))
    assert codes == [1, 1], said
    for text in said:
        assert text.count(DIFFERENT) == 1, text
        # torchrun itself ends with a traceback of its own when a command fails
        assert launcher is by_torchrun or "Traceback" not in text
    assert not list(tmp_path.glob("artifacts/*"))


def test_nodes_with_other_code_are_refused(tmp_path):
    other = tmp_path / "other"
    for name in ("cai", "conf", "sweeps"):
        shutil.copytree(ROOT / name, other / name)
    with (other / "cai" / "seeds.py").open("a") as file:
        file.write("\nOTHER = 1\n")
    command = (*KEYS, f"outputs={tmp_path / 'out'}", "stage=sft")
    codes, said = run_nodes(by_srun, command, command, folders=(ROOT, other))
    assert codes == [1, 1], said
    for text in said:
        assert text.count(DIFFERENT) == 1
        assert "Traceback" not in text


@pytest.fixture
def told(monkeypatch):
    """Set the environment of a process as a launcher would."""
    for name in [name for name in os.environ if name.startswith(LAUNCHERS)]:
        monkeypatch.delenv(name)

    def tell(**values):
        for name, value in values.items():
            monkeypatch.setenv(name, str(value))

    return tell


SRUN = {"SLURM_NTASKS": 6, "SLURM_NNODES": 2, "SLURM_NTASKS_PER_NODE": 3, "SLURM_PROCID": 4,
        "SLURM_LOCALID": 1, "SLURM_NODEID": 1}  # fmt: skip


def test_what_srun_has_started_counts(told):
    told(**SRUN)
    assert launchers.processes(8, 1, "cpu") == Processes("cpu", 3, 2)
    assert not parallel.is_global_zero()
    assert parallel.local_rank() == 1
    found = launchers.environment()
    assert isinstance(found, environments.SLURMEnvironment)
    assert not found.auto_requeue
    told(SLURM_PROCID=0)
    assert parallel.is_global_zero()


@pytest.mark.parametrize("name", ["bash", "interactive"])
def test_a_shell_that_srun_has_started_is_one_process(told, name):
    told(**SRUN, SLURM_JOB_NAME=name)
    assert launchers.processes(8, 1) == Processes("auto", 8, 1)
    assert parallel.is_global_zero()
    assert isinstance(launchers.environment(), environments.LightningEnvironment)


def test_tasks_that_are_not_of_nodes_are_refused(told):
    told(**{**SRUN, "SLURM_NTASKS": 5})
    with pytest.raises(UserError, match=r"started 5 tasks on 2 nodes: give srun .*per-node=N"):
        launchers.processes(1, 1)


def test_torchrun_with_one_process_is_not_joined_by_others(told):
    told(TORCHELASTIC_RUN_ID="x", WORLD_SIZE=1, LOCAL_WORLD_SIZE=1, RANK=0, LOCAL_RANK=0)
    assert launchers.processes(4, 2) == Processes("auto", 1, 1)


def test_nodes_that_nobody_has_numbered_are_refused(told):
    with pytest.raises(UserError, match=r"num_nodes=2, but nobody .* NODE_RANK, MASTER_ADDR"):
        launchers.processes(8, 2)
    told(NODE_RANK=1, MASTER_ADDR="127.0.0.1", MASTER_PORT=1)
    assert launchers.processes(8, 2) == Processes("auto", 8, 2)
    assert not parallel.is_global_zero()
