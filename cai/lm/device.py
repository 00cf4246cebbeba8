"""Where, in how many processes and with how many threads a model runs."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from cai import launchers, parallel
from cai.config import Accelerator, HardwareConfig, ModelSource, Precision, Strategy
from cai.errors import UserError
from cai.launchers import Processes


def torch_device(hardware: HardwareConfig) -> torch.device:
    """Choose the device; each process of a machine has a GPU of its own.

    Raises:
        UserError: If one is asked for and there is none, or fewer than processes.
    """
    wanted, cuda = hardware.accelerator, torch.cuda.is_available()
    if wanted is Accelerator.gpu and not cuda:
        raise UserError("hardware.accelerator=gpu, but torch sees no GPU: use cpu or auto")
    if wanted is Accelerator.mps:
        if not torch.backends.mps.is_available():
            raise UserError("hardware.accelerator=mps, but torch sees none: use cpu or auto")
        return torch.device("mps")
    if not cuda or wanted is Accelerator.cpu:
        return torch.device("cpu")
    if parallel.local_rank() >= torch.cuda.device_count():
        raise UserError(_too_many(parallel.local_rank() + 1))
    return torch.device("cuda", parallel.local_rank())


def processes_of(hardware: HardwareConfig) -> Processes:
    """Say how many processes a run has: those that are there already, or those asked for.

    Raises:
        UserError: If there are not enough devices.
    """
    device = torch_device(hardware)
    accelerator = {"cpu": "cpu", "cuda": "gpu", "mps": "mps"}[device.type]
    _check_abilities(hardware, device)
    counted = launchers.processes(hardware.devices, hardware.num_nodes, accelerator)
    if device.type == "cuda" and counted.devices > torch.cuda.device_count():
        raise UserError(_too_many(counted.devices))
    if device.type == "mps" and counted.devices > 1:
        raise UserError(f"hardware.devices={counted.devices}, but there is one mps device: use 1")
    return counted


def _check_abilities(hardware: HardwareConfig, device: torch.device) -> None:
    if device.type == "mps" and hardware.strategy is Strategy.shard:
        raise UserError("hardware.strategy=shard needs processors or CUDA devices: use ddp")
    mixed = device.type == "cuda" and hardware.precision is Precision.bf16_mixed
    if mixed and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UserError("hardware.precision=bf16_mixed, but this GPU has no bfloat16: use fp32")


def _too_many(n: int) -> str:
    return (
        f"hardware.devices={n}, but this machine has {torch.cuda.device_count()} GPUs: start as "
        "many processes as there are"
    )


def set_threads(hardware: HardwareConfig, source: ModelSource) -> None:
    """Use as many threads as asked for; 0 leaves the choice to torch, and one is enough for tiny.

    Denormal numbers become 0: the gradients of a vocabulary are full of them once a text is known
    well, and a processor is ten times slower on them.
    """
    torch.set_flush_denormal(True)
    if threads := hardware.threads or int(source is ModelSource.tiny):
        torch.set_num_threads(threads)


def device_type(hardware: HardwareConfig) -> str:
    """Return torch's name for the kind of device, without asking whether it is there."""
    if hardware.accelerator is Accelerator.auto:
        return "cuda" if torch.cuda.is_available() else "cpu"
    return {"cpu": "cpu", "gpu": "cuda", "mps": "mps"}[hardware.accelerator.value]


def memory_of(hardware: HardwareConfig) -> float:
    """Return the GiB that a process may take: of its GPU, or its share of the machine."""
    device = device_type(hardware)
    if device == "cuda":
        return float(torch.cuda.mem_get_info()[0]) / 2**30
    if device == "mps":
        return float(torch.mps.recommended_max_memory()) / 2**30
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text().strip()).isdigit():
        total = min(total, int(text))
    local = launchers.processes(hardware.devices, hardware.num_nodes).devices
    return total / local / 2**30
