"""Several processes on one stage: each does its share, and all of them know the whole result.

``torchrun --nproc-per-node 4 -m cai`` starts the processes, one per device. The first one, the
leader, is the only one that writes to ``outputs/``. Work is dealt out in turn, like cards: process
r of W gets the items r, r + W, r + 2W and so on. Sums over the shares equal those of one process
up to rounding, so the number of processes never changes what is computed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:  # torch takes seconds to import, and a misspelt key should be answered at once
    from torch import nn

T = TypeVar("T")
R = TypeVar("R")

_PATIENCE = timedelta(days=30)
"""Those who wait for a stage that one process does alone wait as long as it takes."""

_together: ContextVar[bool] = ContextVar("together", default=False)


def launched() -> bool:
    """Tell whether torchrun has started more than one process."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ["WORLD_SIZE"]) > 1


def leads() -> bool:
    """Tell whether this process is the leader; without torchrun it is."""
    return not launched() or os.environ["RANK"] == "0"


def local_rank() -> int:
    """Return the number of this process on its machine, which is that of its device."""
    return int(os.environ["LOCAL_RANK"]) if launched() else 0


def world() -> int:
    """Return how many processes work on the current stage."""
    if not _together.get():
        return 1
    from torch import distributed

    return distributed.get_world_size()


def rank() -> int:
    """Return this process's place among those that work on the current stage."""
    return int(os.environ["RANK"]) if _together.get() else 0


@contextmanager
def connected() -> Iterator[None]:
    """Connect the processes that torchrun has started, if it has, for a block."""
    if not launched():
        yield
        return
    import torch
    from torch import distributed

    backend = "gloo"
    if local_rank() < torch.cuda.device_count():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(local_rank())
    distributed.init_process_group(backend, timeout=_PATIENCE)
    try:
        yield
    finally:
        distributed.destroy_process_group()


@contextmanager
def together(shared: bool) -> Iterator[None]:
    """Deal out the work of a block; if it is not ``shared``, every process is on its own."""
    token = _together.set(shared and launched())
    try:
        yield
    finally:
        _together.reset(token)


def tell(value: Any) -> Any:
    """Return the leader's value in every process that torchrun has started."""
    if not launched():
        return value
    from torch import distributed

    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def share(items: Sequence[T]) -> Sequence[T]:
    """Return the items that are this process's to do."""
    return items[rank() :: world()]


def gather(value: T) -> list[T]:
    """Return the value of every process, in their order."""
    if world() == 1:
        return [value]
    from torch import distributed

    values: list[Any] = [None] * world()
    distributed.all_gather_object(values, value)
    return values


def spread(items: Sequence[T], work: Callable[[Sequence[T]], Sequence[R]]) -> list[R]:
    """Let each process work on its share of the items; return all results in their order."""
    results: list[Any] = [None] * len(items)
    for number, part in enumerate(gather(work(share(items)))):
        results[number :: world()] = part
    return results


def total(values: Sequence[float]) -> list[float]:
    """Add up numbers over the processes."""
    return [sum(column) for column in zip(*gather(list(values)), strict=True)]


def add_up_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Give every process the sum of all gradients; one that has none counts as zero."""
    if world() == 1:
        return
    import torch
    from torch import distributed

    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([grad.flatten().float() for grad in grads])
    distributed.all_reduce(flat)
    sizes = [grad.numel() for grad in grads]
    for parameter, grad, part in zip(parameters, grads, flat.split(sizes), strict=True):
        parameter.grad = part.view_as(grad).to(grad.dtype)
