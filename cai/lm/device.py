"""Where and with how many threads a model runs."""

from __future__ import annotations

import torch

from cai import parallel
from cai.config import Accelerator, HardwareConfig, ModelSource
from cai.errors import UserError


def torch_device(hardware: HardwareConfig) -> torch.device:
    """Choose the device; each process that torchrun has started has a GPU of its own.

    Raises:
        UserError: If a GPU is asked for and there is none, or fewer than processes.
    """
    cuda = torch.cuda.is_available()
    if hardware.accelerator is Accelerator.gpu and not cuda:
        raise UserError("hardware.accelerator=gpu, but torch sees no GPU: use cpu or auto")
    if not cuda or hardware.accelerator is Accelerator.cpu:
        return torch.device("cpu")
    if parallel.local_rank() >= torch.cuda.device_count():
        raise UserError(
            f"this machine has {torch.cuda.device_count()} GPUs: start as many processes with "
            "torchrun --nproc-per-node"
        )
    return torch.device("cuda", parallel.local_rank())


def set_threads(hardware: HardwareConfig, source: ModelSource) -> None:
    """Use as many threads as asked for; 0 leaves the choice to torch, and one is enough for tiny.

    Denormal numbers become 0: the gradients of a vocabulary are full of them once a text is known
    well, and a processor is ten times slower on them.
    """
    torch.set_flush_denormal(True)
    if threads := hardware.threads or int(source is ModelSource.tiny):
        torch.set_num_threads(threads)
