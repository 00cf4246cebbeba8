"""Who has started the processes of a run: torchrun, srun, or nobody, and then Lightning does."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from cai.errors import UserError

if TYPE_CHECKING:
    from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
    from torch._C._distributed_c10d import TCPStore

POLL = 0.2
"""Seconds between two looks for what another process has to say."""
BY_HAND = ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What each node has to be told where nobody else starts its processes."""


@dataclass(frozen=True)
class Processes:
    """How many processes there are, and where.

    Attributes:
        accelerator: Lightning's name of the devices.
        devices: Of each node, one process each.
        num_nodes: Machines.
    """

    accelerator: str
    devices: int
    num_nodes: int

    @property
    def world_size(self) -> int:
        """Return how many there are in all."""
        return self.devices * self.num_nodes


def processes(devices: int, num_nodes: int, accelerator: str = "auto") -> Processes:
    """Count the processes: those that torchrun or srun has started, or those asked for.

    Raises:
        UserError: If several nodes are asked for and nobody says which of them this is.
    """
    if _by_torchrun():
        world, local = (int(os.environ[name]) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
        return Processes(accelerator, local, world // local)
    if by_srun():
        return Processes(accelerator, *_tasks())
    if num_nodes > 1 and not all(name in os.environ for name in BY_HAND):
        raise UserError(
            f"hardware.num_nodes={num_nodes}, but nobody says which of them this is: start with "
            f"srun or torchrun, or give the command on each node with {', '.join(BY_HAND)} set"
        )
    return Processes(accelerator, devices, num_nodes)


def _by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def by_srun() -> bool:
    """Tell whether SLURM has started several processes; a shell in an allocation is but one."""
    several = int(os.environ.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in os.environ
    return several and os.environ.get("SLURM_JOB_NAME") not in {"bash", "interactive"}


def _tasks() -> tuple[int, int]:
    """Return SLURM's tasks of each node, and its nodes."""
    tasks, nodes = (int(os.environ.get(f"SLURM_{name}", "1")) for name in ("NTASKS", "NNODES"))
    each = os.environ.get("SLURM_NTASKS_PER_NODE", "")
    if each != str(tasks / nodes).removesuffix(".0"):
        raise UserError(
            f"SLURM has started {tasks} tasks on {nodes} nodes: give srun --nodes={nodes} "
            "--ntasks-per-node=N, the devices of a node"
        )
    return int(each), nodes


def environment() -> ClusterEnvironment:
    """Make Lightning's view of who has started the processes.

    A run that SLURM ends goes on by the same command, so Lightning shall not queue it again.
    """
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    if _by_torchrun():
        return TorchElasticEnvironment()
    if by_srun():
        return SLURMEnvironment(auto_requeue=False)
    return LightningEnvironment()


@contextmanager
def introduced(num_nodes: int, identity: str, patience: timedelta) -> Iterator[None]:
    """Compare what the nodes run where people have started them, before they start processes.

    Nodes that count their processes differently would wait for each other. In the block they
    connect, at the same address: the first one serves it until all of them have.

    Raises:
        UserError: If another node runs something else.
    """
    by_hand = not _by_torchrun() and not by_srun() and "LOCAL_RANK" not in os.environ
    if num_nodes == 1 or not by_hand:
        yield
        return
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    node, host, port = (os.environ[name] for name in BY_HAND)
    first = node == "0"
    store = TCPStore(
        host, int(port), is_master=first, wait_for_workers=False, timeout=patience,
        multi_tenant=True,
    )  # fmt: skip
    if first:
        store.set("node/0", identity)
        others = (str(n) for n in range(1, num_nodes))
        told = _answers(store, others, time.monotonic() + patience.total_seconds())
    else:
        told = iter([store.get("node/0").decode()])
        store.set(f"node/{node}", identity)
    for other in told:
        agree({identity, other})
    yield


def _answers(store: TCPStore, nodes: Iterable[str], until: float) -> Iterator[str]:
    for node in nodes:
        while not store.check([f"node/{node}"]):
            if time.monotonic() > until:
                raise UserError(f"node {node} has not come: give it the same command")
            time.sleep(POLL)
        yield store.get(f"node/{node}").decode()


def agree(identities: set[str]) -> None:
    """Refuse processes that have different code or configs."""
    if len(identities) > 1:
        raise UserError(
            "the processes do not run the same: give every node the same code, the same config "
            "and the same command"
        )
