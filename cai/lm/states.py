"""What the layers hold at the end of a response, for probes that read it off."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from cai.lm.backbone import n_layers
from cai.lm.cache import PrefixCache
from cai.lm.mapping import map_responses
from cai.lm.packing import Packed, Tree, all_hidden_states


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

    def read(packed: Packed, before: PrefixCache | None) -> Tensor:
        layers = all_hidden_states(model, packed, before)[first:]
        row, place = packed.last.unbind(1)
        return torch.cat([layer[row, place] for layer in layers], dim=-1).float()

    return map_responses(model, trees, max_tokens, read)
