"""What the layers hold at the end of a response, for probes that read it off."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from cai.lm.backbone import n_layers, run_all_layers
from cai.lm.packing import Tree, pack, read_in_batches


@torch.no_grad()
def end_states(model: PreTrainedModel, trees: Sequence[Tree], max_tokens: int) -> list[Tensor]:
    """Return the upper half of the layers at the last token of each response.

    Args:
        model: A causal LM; the adapter that is active answers.
        trees: Prompts with their responses.
        max_tokens: Padded tokens in one forward pass.

    Returns:
        Per tree [responses, layers * H], float32, on the processor.
    """
    first = n_layers(model) // 2 + 1

    def read(group: list[int]) -> list[Tensor]:
        packed = pack([trees[i] for i in group]).to(model.device)
        layers = run_all_layers(model, packed.ids, packed.positions, packed.mask)[first:]
        row, place = packed.last.unbind(1)
        ends = torch.cat([layer[row, place] for layer in layers], dim=-1).float().cpu()
        return list(ends.split([len(trees[i].responses) for i in group]))

    return read_in_batches(trees, max_tokens, read)
