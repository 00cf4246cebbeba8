"""One base between several processes: FSDP2 gathers a layer when it is needed and lets it go.

The base is frozen, so nothing but weights travels. Adapters and heads, which are small, are whole
in every process and Lightning's DDP keeps them equal.
"""

from __future__ import annotations

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import PreTrainedModel

from cai import parallel
from cai.config import HardwareConfig, Strategy


def is_sharded(hardware: HardwareConfig) -> bool:
    """Tell whether the processes of the current stage hold a base between them."""
    return hardware.strategy is Strategy.shard and parallel.world_size() > 1


def shard(base: PreTrainedModel, device: torch.device) -> None:
    """Keep 1/W of each decoder layer in each of W processes.

    A process that has finished its share before the others makes passes of one token, because
    gathering a layer takes all of them.
    """
    mesh = init_device_mesh(device.type, (parallel.world_size(),))
    for layer in base.base_model.layers:  # type: ignore[union-attr]
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)

    @torch.no_grad()
    def one_token() -> None:
        base.base_model(
            input_ids=torch.zeros(1, 1, dtype=torch.long, device=device), use_cache=False
        )

    one_token()  # buffers that were made in inference mode could not be used in training
    parallel.keep_in_step(one_token)
    base.base_model.register_forward_pre_hook(lambda *rest: parallel.step_together())
