"""What a model takes of a device's memory, from its shapes alone, before any weight is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from peft import PeftModel, TaskType
from torch import nn
from transformers import PreTrainedModel

from cai.config import (
    Config,
    Dtype,
    HardwareConfig,
    ModelConfig,
    ModelSource,
    OptimizerKind,
    Quantization,
    Strategy,
)
from cai.lm.adapters import find_targets, lora_config, n_reached
from cai.lm.attention import WIDEST
from cai.lm.device import device_type
from cai.lm.pretrained import outline
from cai.lm.score import CHUNK
from cai.lm.tiny import tiny_model
from cai.pipeline.stage import Holds

FLOAT = 4
"""Bytes of a number in float32, which all that is trained has."""
PACKED = {Quantization.nf4: 0.52, Quantization.int8: 1.01}
"""Bytes of a weight of a linear layer, the constants of its block included."""
MOMENTS = {
    OptimizerKind.adamw: 8.0,
    OptimizerKind.adamw_8bit: 2.1,
    OptimizerKind.paged_adamw_8bit: 2.1,
}
"""Bytes of Adam's two moments for each trained number."""
NORMS = 10
"""Bytes of a hidden state in low precision that the norms of a layer keep in float32 beside it."""
HOLES = {"cpu": 1.4, "cuda": 1.1, "mps": 1.1}
"""What an allocator takes for the activations of a step, as a multiple of what they are."""
LEFT = {"cpu": 0.35, "cuda": 0.0, "mps": 0.0}
"""Share of the activations that are dropped to be computed again whose holes nothing else fits."""
LIBRARIES = {"cpu": 0.55, "cuda": 0.6, "mps": 0.3}
"""GiB of a process before it has a model: libraries, or the context of a GPU."""
GIB = 2**30


@dataclass(frozen=True)
class Shape:
    """A model in numbers.

    Attributes:
        weights: All of them.
        linear: Those of the layers that quantisation packs.
        sharded: Those of the decoder layers.
        reached: Those that adapters reach.
        adapter: The weights of one adapter.
        layers: How many there are.
        hidden: Width of a hidden state.
        widths: Inputs and outputs of all linear layers, added up: what a token leaves behind.
        heads: Of the attention of a layer.
        cached: Numbers that a token leaves in the cache.
        vocabulary: Width of the logits.
    """

    weights: int
    linear: int
    sharded: int
    reached: int
    adapter: int
    layers: int
    hidden: int
    widths: int
    heads: int
    cached: int
    vocabulary: int


@dataclass(frozen=True)
class Footprint:
    """Peak memory of one process in GiB, by what takes it.

    Attributes:
        libraries: Whatever the model.
        weights: Of the base, and of copies of it.
        trained: Adapters, gradients and the optimizer's state.
        step: Activations and logits of a micro-batch of training.
        sampling: Keys and values, logits, and the weights with an adapter folded in.
    """

    libraries: float
    weights: float
    trained: float
    step: float
    sampling: float

    @property
    def peak(self) -> float:
        """Return the most that is held at once: a stage samples or trains."""
        return self.libraries + self.weights + self.trained + max(self.step, self.sampling)


def shape_of(config: ModelConfig) -> Shape:
    """Build the model without its weights and count."""
    tiny = config.source is ModelSource.tiny
    network: PreTrainedModel = tiny_model(config.context) if tiny else outline(config)
    text = network.config.get_text_config()
    targets = find_targets(network, config.lora)
    layers = getattr(network.base_model, "layers", nn.ModuleList())
    own = {id(p) for p in layers.parameters()}
    head = network.get_output_embeddings()
    linear = [m for m in network.modules() if isinstance(m, nn.Linear) and m is not head]
    sizes = {id(p): p.numel() for p in network.parameters()}
    heads = int(text.num_attention_heads)
    width = int(getattr(text, "head_dim", None) or text.hidden_size // heads)
    counted = {
        "weights": sum(sizes.values()),
        "linear": sum(layer.weight.numel() for layer in linear),
        "sharded": sum(n for key, n in sizes.items() if key in own),
        "reached": n_reached(network, targets),
        "widths": sum(layer.in_features + layer.out_features for layer in linear)
        + _experts(network, text),
    }
    lora = lora_config(config.lora, targets, TaskType.CAUSAL_LM)
    PeftModel(network, lora, adapter_name="one", low_cpu_mem_usage=True)
    return Shape(
        **counted,
        adapter=sum(p.numel() for name, p in network.named_parameters() if "lora_" in name),
        layers=int(text.num_hidden_layers),
        hidden=int(text.hidden_size),
        heads=heads,
        cached=2
        * int(text.num_hidden_layers)
        * int(getattr(text, "num_key_value_heads", None) or heads)
        * width,
        vocabulary=int(text.vocab_size),
    )


def _experts(network: PreTrainedModel, text: object) -> int:
    """Add up the widths of the stacked experts that a token passes through."""
    chosen = int(getattr(text, "num_experts_per_tok", None) or 1)
    return sum(chosen * (p.shape[1] + p.shape[2]) for p in network.parameters() if p.dim() == 3)


def footprint(shape: Shape, holds: Holds, config: Config, world: int) -> Footprint:
    """Add up what a stage holds at its peak, in one process.

    Args:
        shape: Of the model.
        holds: What the stage has in memory at once.
        config: Says how weights are kept, and the size of micro-batches and samples.
        world: Processes in all.
    """
    model, hardware = config.model, config.hardware
    size = 2 if model.dtype is Dtype.bf16 else FLOAT
    device = device_type(hardware)
    dense = model.quantization is Quantization.none
    parts = world if hardware.strategy is Strategy.shard else 1
    base = (shape.weights - shape.sharded + shape.sharded / parts) * size
    if not dense:
        base -= shape.linear * (size - PACKED[model.quantization])
    copies = FLOAT * shape.weights * (holds.whole + holds.copies)
    # Gradients, a copy of them where processes average, moments; weights and moments to go back to.
    each = FLOAT * (2 if world > 1 else 1) + MOMENTS[holds.optimizer]
    each += (FLOAT + MOMENTS[holds.optimizer]) if holds.undo else 0
    number = shape.adapter * holds.trained + shape.weights * holds.whole
    trained = FLOAT * shape.adapter * holds.adapters + number * each
    return Footprint(
        libraries=LIBRARIES[device],
        weights=(base + copies) / GIB,
        trained=trained / GIB,
        step=_step(shape, holds, FLOAT if holds.whole else size, hardware) / GIB,
        sampling=_sampling(shape, holds, size, hardware, dense and parts == 1) / GIB,
    )


def _step(shape: Shape, holds: Holds, size: int, hardware: HardwareConfig) -> float:
    """Return the bytes of a forward and backward pass through one micro-batch."""
    if not holds.trained + holds.whole:
        return 0.0
    device, tokens = device_type(hardware), hardware.micro_tokens
    layer = size * shape.widths / shape.layers + (NORMS * shape.hidden if size < FLOAT else 0)
    if device == "cpu":
        layer += size * shape.heads * min(holds.length, WIDEST)
    if hardware.activation_checkpointing:
        kept = shape.layers * size * shape.hidden + layer
        kept += LEFT[device] * shape.layers * layer
    else:
        kept = shape.layers * layer
    read = tokens * holds.read
    logits = FLOAT * shape.vocabulary * (read + 3 * min(read, CHUNK))
    return (tokens * kept + logits) * HOLES[device]


def _sampling(
    shape: Shape, holds: Holds, size: int, hardware: HardwareConfig, folds: bool
) -> float:
    """Return the bytes of sampling: cache, logits at each step, weights with an adapter in them."""
    rows = min(hardware.sample_rows, holds.rows)
    if not rows:
        return 0.0
    cache = rows * holds.length * shape.cached * size
    # Logits and log-probabilities in float32, probabilities and their sums in double precision.
    logits = rows * shape.vocabulary * (4 * FLOAT + 2 * 8)
    return cache + logits + (size * shape.reached if folds else 0)


def remedy(found: Footprint, config: Config) -> tuple[str, str]:
    """Name what takes most of the memory, and the key that changes it."""
    hardware = config.hardware
    smaller = "choose a smaller model, or several devices with hardware=shard"
    if config.model.quantization is Quantization.none:
        smaller = "set model.quantization=nf4, or spread it with hardware=shard"
    advice = {
        "weights": smaller,
        "trained": "set the optimizer to adamw_8bit, or full_finetuning=false",
        "step": f"lower hardware.micro_tokens={hardware.micro_tokens}, or set "
        "hardware.activation_checkpointing=true",
        "sampling": f"lower hardware.sample_rows={hardware.sample_rows}",
    }
    part = max(advice, key=lambda name: float(getattr(found, name)))
    return part, advice[part]
