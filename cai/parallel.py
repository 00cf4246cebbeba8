"""Several processes on one stage: each does its share, and all of them know the whole result.

They are started by Lightning's own launcher, one per device, or by torchrun or srun. The first one
of all, global zero, is the only one that writes to ``outputs/``. Work is dealt out in turn, like
cards: process r of W gets the items r, r + W, r + 2W and so on. Sums over the shares equal those of
one process up to rounding, so the number of processes never changes what is computed.
"""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, TypeVar

from cai import followers
from cai.errors import UserError
from cai.launchers import POLL, Processes, agree, by_srun, environment, introduced

T = TypeVar("T")
R = TypeVar("R")

PATIENCE = timedelta(minutes=10)
"""Processes that work on one stage wait so long for each other; then one of them is lost."""
LOST = ("connection", "timed out", "timeout", "broken pipe", "recv")
"""What torch says when another process is gone."""

_together: ContextVar[bool] = ContextVar("together", default=False)
_in_step: ContextVar[bool] = ContextVar("in_step", default=False)
_idle_pass: Callable[[], None] | None = None
_said = 0


def is_global_zero() -> bool:
    """Tell whether this is the first process of all; without others it is."""
    if "RANK" in os.environ:
        return os.environ["RANK"] == "0"
    if by_srun():
        return os.environ["SLURM_PROCID"] == "0"
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "NODE_RANK"))


def local_rank() -> int:
    """Return the number of this process on its machine, which is that of its device."""
    return int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")))


def are_connected() -> bool:
    """Tell whether this is one of several processes."""
    from torch import distributed  # takes seconds, and a misspelt key should be answered at once

    return distributed.is_available() and distributed.is_initialized()


def world_size() -> int:
    """Return how many processes work on the current stage."""
    if not _together.get():
        return 1
    from torch import distributed

    return distributed.get_world_size()


def rank() -> int:
    """Return this process's place among those that work on the current stage."""
    if not _together.get():
        return 0
    from torch import distributed

    return distributed.get_rank()


@contextmanager
def connected(processes: Processes, identity: str) -> Iterator[None]:
    """Start the other processes, unless somebody has, and connect all of them for a block.

    Args:
        processes: How many of them.
        identity: Names the code and the config; must be the same everywhere.

    Raises:
        UserError: If another process is lost, or runs something else.
    """
    if processes.world_size == 1:
        yield
        return
    from torch import distributed

    try:
        with introduced(processes.num_nodes, identity, PATIENCE):
            _launch(processes)
        agree_on(identity)
        yield
        with together(shared=True):
            all_gather("done")  # global zero, who keeps the store, leaves last
    except (RuntimeError, EOFError, ConnectionError) as error:
        if not any(word in str(error).lower() for word in LOST):
            raise
        raise UserError(
            "another process has stopped or does not answer any more: look for its message, and "
            "start the same command again, which goes on where this one stopped"
        ) from error
    finally:
        if are_connected():
            distributed.destroy_process_group()


def _launch(processes: Processes) -> None:
    import torch
    from lightning.fabric import Fabric
    from lightning.fabric.strategies.ddp import DDPStrategy

    several = torch.cuda.is_available() and processes.accelerator != "cpu"
    strategy = DDPStrategy(
        process_group_backend="cpu:gloo,cuda:nccl" if several else "gloo", timeout=PATIENCE
    )
    fabric = Fabric(
        accelerator=processes.accelerator if several else "cpu",
        devices=processes.devices,
        num_nodes=processes.num_nodes,
        strategy=strategy,
        plugins=environment(),
    )
    if followers.was_started():
        followers.follow()
    else:
        followers.lead()
    fabric.launch()


def agree_on(what: str) -> None:
    """Compare what all processes are about to do.

    Raises:
        UserError: If it is not the same.
    """
    with together(shared=True):
        agree(set(all_gather(what)))


@contextmanager
def together(shared: bool) -> Iterator[None]:
    """Deal out the work of a block; if it is not ``shared``, every process is on its own."""
    token = _together.set(shared and are_connected())
    try:
        yield
    finally:
        _together.reset(token)


@contextmanager
def alone() -> Iterator[None]:
    """Let every process do something of its own for a block, in passes that are in step.

    Where a model is spread over the processes, each pass through it takes all of them.
    """
    if world_size() == 1:
        yield
        return
    with together(shared=False):
        token = _in_step.set(_idle_pass is not None)
        try:
            yield
            _follow_others()
        finally:
            _in_step.reset(token)


def keep_in_step(idle_pass: Callable[[], None] | None) -> None:
    """Say how a process that has nothing to do joins a pass through the current model.

    None: the model is whole in every process, and nobody waits.
    """
    global _idle_pass
    _idle_pass = idle_pass


def step_together() -> None:
    """Wait at the start of a pass until all processes begin one; called before each pass."""
    if _in_step.get():
        _any_busy(True)


def _follow_others() -> None:
    """Join the passes of those that are still busy."""
    while _in_step.get() and _any_busy(False):
        assert _idle_pass is not None
        token = _in_step.set(False)
        _idle_pass()
        _in_step.reset(token)


def _any_busy(busy: bool) -> bool:
    import torch
    from torch import distributed

    flag = torch.tensor(float(busy))
    distributed.all_reduce(flag)
    return bool(flag)


def broadcast(value: Any) -> Any:
    """Return global zero's value in every process; they wait for it as long as it lives."""
    global _said
    if not are_connected():
        return value
    from torch.distributed import distributed_c10d, get_rank

    store, key = distributed_c10d._get_default_store(), f"cai/{_said}"
    _said += 1
    if get_rank() == 0:
        store.set(key, pickle.dumps(value).hex())
        return value
    while not store.check([key]):
        time.sleep(POLL)
    return pickle.loads(bytes.fromhex(store.get(key).decode()))


def share(items: Sequence[T]) -> Sequence[T]:
    """Return the items that are this process's to do."""
    return items[rank() :: world_size()]


def all_gather(value: T) -> list[T]:
    """Return the value of every process, in their order."""
    if world_size() == 1:
        return [value]
    from torch import distributed

    values: list[Any] = [None] * world_size()
    distributed.all_gather_object(values, value)
    return values


def spread(items: Sequence[T], work: Callable[[Sequence[T]], Sequence[R]]) -> list[R]:
    """Let each process work on its share of the items; return all results in their order.

    What ``work`` spreads in turn, it does alone.
    """
    n, own = world_size(), share(items)
    with alone():
        done = work(own) if own else []
    results: list[Any] = [None] * len(items)
    for number, part in enumerate(all_gather(done)):
        results[number::n] = part
    return results


def all_reduce(values: Sequence[float]) -> list[float]:
    """Add up numbers over the processes."""
    return [sum(column) for column in zip(*all_gather(list(values)), strict=True)]
