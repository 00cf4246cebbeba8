"""What benchmarks/gpu.py measures with: random models, the FLOP of a step, kernels by kind."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM, PretrainedConfig

from cai.lm.packing import Tree
from cai.lm.tiny import tiny_tokenizer

SHAPES = {
    "1B": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
           "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 49152},
    "SmolLM2": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
                "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 259},
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 259},
}  # fmt: skip
"""Of Llama models with tied embeddings: 1.1B, 107M and 0.1M weights."""
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12}
"""Published dense bf16 FLOP/s of cards, by a part of their names."""
KINDS = {
    "attention": ("flash", "fmha", "attention", "sdpa"),
    "matrix products": ("gemm", "nvjet", "cutlass", "xmma", "cublas", "splitk"),
    "optimizer": ("multi_tensor", "adam"),
    "copies": ("memcpy", "memset", "copy"),
    "reductions and losses": ("reduce", "softmax", "logsumexp", "norm"),
    "element by element": ("elementwise", "vectorized", "cat", "index", "gather", "scatter"),
}
"""Parts of the names of kernels; the first kind that fits counts."""


def save_random(folder: Path, shape: str, source: Path | None) -> None:
    """Save a Llama of random weights in bf16.

    Args:
        folder: Where to.
        shape: Of the network, and a byte tokenizer, if there is no ``source``.
        source: A folder with a config and a tokenizer.
    """
    if source is not None:
        config: PretrainedConfig = AutoConfig.from_pretrained(source)
        shutil.copytree(source, folder)
    else:
        special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
        config = LlamaConfig(
            **SHAPES[shape],
            max_position_embeddings=8192,
            tie_word_embeddings=True,
            **special,  # type: ignore[arg-type]
        )
        tiny_tokenizer().save_pretrained(folder)
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlamaForCausalLM(config)  # type: ignore[arg-type]
    model.to(torch.bfloat16).save_pretrained(folder)  # type: ignore[call-arg]


def random_trees(n: int, responses: int, vocabulary: int) -> list[Tree]:
    """Draw prompts and responses of 128 to 384 tokens; those of a tiny vocabulary are shorter."""
    drawn = random.Random(0)
    high = 384 if vocabulary > 1000 else 24

    def text() -> list[int]:
        return [drawn.randrange(3, vocabulary) for _ in range(drawn.randint(high // 3, high))]

    return [Tree(text(), [text() for _ in range(responses)]) for _ in range(n)]


def needed(config: PretrainedConfig, rank: int, trees: Sequence[Tree], head: bool) -> float:
    """Count the FLOP that training an adapter on these rows needs, padding left out.

    Forward, and backward to the activations alone, for the frozen weights: 4 per weight and token.
    The adapter's weights have gradients too: 6. Attention: 12 D per pair of a query and a key that
    it sees, in each layer. The head: 4 H V per token of a reply, where it is read.
    """
    width, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    keys = width // config.num_attention_heads * config.num_key_value_heads
    shapes = [(width, width)] * 2 + [(width, keys)] * 2 + [(width, inner)] * 3
    frozen = layers * sum(a * b for a, b in shapes)
    adapter = layers * sum(rank * (a + b) for a, b in shapes)
    tokens = sum(tree.length for tree in trees)
    replies = sum(len(response) for tree in trees for response in tree.responses)
    flops = (4.0 * frozen + 6.0 * adapter) * tokens + 12.0 * width * layers * _pairs(trees)
    return flops + (4.0 * width * config.vocab_size * replies if head else 0.0)


def _pairs(trees: Sequence[Tree]) -> float:
    """Count the pairs of a query and a key; a response sees its prompt and itself."""
    total = 0.0
    for prompt, responses in trees:
        total += len(prompt) * (len(prompt) + 1) / 2
        total += sum(len(r) * len(prompt) + len(r) * (len(r) + 1) / 2 for r in responses)
    return total


def peak_of() -> float | None:
    """Return the published peak of the card, if it is known."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def matrix_rate(size: int = 8192, times: int = 20) -> float:
    """Measure the FLOP/s of a product of two large bf16 matrices."""
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    a @ b
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(times):
        a @ b
    torch.cuda.synchronize()
    return times * 2 * size**3 / (time.perf_counter() - began)


def spent_on(kernels: Mapping[str, float], seconds: float) -> dict[str, float]:
    """Return the share of the time by kind of kernel, and of the time in which none ran.

    Args:
        kernels: Microseconds by name.
        seconds: That the profiled steps take without a profiler.
    """
    shares = dict.fromkeys((*KINDS, "other kernels"), 0.0)
    for name, microseconds in kernels.items():
        low = name.lower()
        kind = next(
            (kind for kind, parts in KINDS.items() if any(part in low for part in parts)),
            "other kernels",
        )
        shares[kind] += microseconds / 1e6 / seconds
    shares["no kernel"] = max(0.0, 1 - sum(shares.values()))
    return shares
