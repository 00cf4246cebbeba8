"""Architectures beside those of ``families``: read and sampled as they read themselves, or refused.

The model to compare with has the library's plainest attention.
"""

import families
import pytest
import torch
from tiny import tiny_config
from transformers import AutoModelForCausalLM

from cai.config import ModelSource
from cai.dialogue import Role, Turn, human
from cai.errors import UserError
from cai.lm.adapters import coverage, find_targets
from cai.lm.generate import Sampling, generate
from cai.lm.load import load_model
from cai.lm.packing import Tree
from cai.lm.score import token_logprobs

TALKS = [
    (human("How do I make bread at home, step by step?"),),
    (human("Hi"), Turn(Role.ASSISTANT, "Hello there."), human("Why? " * 30 + "Say it.")),
]
GROUPED = {"num_key_value_heads": 2}
WIDE = {**GROUPED, "head_dim": 16}
MIXED = {"sliding_window": 24, "layer_types": ["sliding_attention", "full_attention"]}
FEW = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
DEEPSEEK = {
    **FEW, "num_key_value_heads": 4, "n_routed_experts": 4, "n_group": 2, "topk_group": 1,
    "first_k_dense_replace": 1, "n_shared_experts": 1,
}  # fmt: skip
LATENT = {
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
    "v_head_dim": 16,
}  # fmt: skip
OTHERS = {
    "apertus": ("llama3", GROUPED), "arcee": ("llama3", GROUPED),
    "codegen": ("neox", {"rotary_dim": 8}), "cohere": ("llama3", GROUPED),
    "cohere2": ("llama3", {**GROUPED, **MIXED}),
    "deepseek_v3": ("llama3", {**DEEPSEEK, **LATENT}), "dots1": ("llama3", DEEPSEEK),
    "ernie4_5": ("llama3", WIDE), "exaone4": ("llama3", {**GROUPED, **MIXED}),
    "falcon": ("neox", {}), "glm": ("llama3", WIDE), "glm4": ("llama3", WIDE),
    "gpt_bigcode": ("neox", {}), "gptj": ("neox", {"rotary_dim": 8}),
    "gpt_oss": ("llama3", {**WIDE, **MIXED, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "granitemoe": ("granite", {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "hunyuan_v1_dense": ("llama3", WIDE), "ministral": ("mistral", {**WIDE, **MIXED}),
    "nemotron": ("llama3", GROUPED), "olmo": ("neox", GROUPED),
    "olmo3": ("olmo2", {**GROUPED, **MIXED}),
    "olmoe": ("olmo2", {**GROUPED, "num_experts": 4, "num_experts_per_tok": 2}),
    "opt": ("neox", {"ffn_dim": 96, "word_embed_proj_dim": 64}), "phi": ("neox", {}),
    "qwen2_moe": ("qwen2", {
        **GROUPED, **FEW, "num_experts": 4, "shared_expert_intermediate_size": 32,
    }),
    "seed_oss": ("llama3", WIDE), "stablelm": ("neox", GROUPED),
    "starcoder2": ("neox", {**GROUPED, "sliding_window": 48}), "vaultgemma": ("gemma", WIDE),
}  # fmt: skip
REFUSED = {
    "falcon": ("neox", {"alibi": True}, "can't be read in packed rows"),
    "llama4_text": ("llama3", {
        **WIDE, "num_local_experts": 4, "intermediate_size_mlp": 96, "attention_chunk_size": 32,
    }, "layers of the kind chunked_attention"),
    "mpt": ("neox", {"d_model": 64, "n_heads": 4, "n_layers": 2}, "takes no position ids"),
    "qwen3_next": ("qwen3", {
        **WIDE, **FEW, "num_experts": 4, "shared_expert_intermediate_size": 32,
        "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
    }, "layers of the kind linear_attention"),
    "xglm": ("neox", {
        "d_model": 64, "attention_heads": 4, "num_layers": 2, "ffn_dim": 96,
    }, "can't be read in packed rows"),
}  # fmt: skip


@pytest.fixture
def load(tmp_path, hardware, monkeypatch):
    def make(arch, words, size):
        family = families.Family(arch, words, {"max_position_embeddings": 2048, **size})
        monkeypatch.setitem(families.FAMILIES, arch, family)
        folder = families.make(tmp_path / "model", arch)
        config = tiny_config(
            source=ModelSource.folder, path=str(folder), dialect=family.dialect, context=1024
        )
        return load_model(config, hardware), folder

    return make


@pytest.mark.parametrize("arch", OTHERS)
def test_another_architecture_reads_as_it_reads_itself(arch, load):
    model, folder = load(arch, *OTHERS[arch])
    plain = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    prompts = [model.chat.prompt(talk) for talk in TALKS]
    sampled = generate(model.network, prompts, [1, 2], Sampling(24, 8), frozenset(), batch_size=2)
    trees = [Tree(p, [row.tokens, row.tokens[3:9]]) for p, row in zip(prompts, sampled)]
    read = token_logprobs(model.network, trees, 4096)
    for tree, row, scores in zip(trees, sampled, read):
        found = [torch.tensor(row.logprobs), *scores]
        for response, got in zip([row.tokens, *tree.responses], found):
            ids = torch.tensor([[*tree.prompt, *response]])
            with torch.no_grad():
                logits = plain(input_ids=ids).logits[0, len(tree.prompt) - 1 : -1].float()
            own = logits.log_softmax(-1).gather(-1, torch.tensor(response)[:, None]).squeeze(-1)
            torch.testing.assert_close(got, own, atol=2e-5, rtol=0)
    assert coverage(plain, find_targets(plain, model.config.lora)).share > 0.95
    model.add_adapter("one", 0)


@pytest.mark.parametrize("arch", REFUSED)
def test_what_can_not_be_packed_is_refused(arch, load):
    words, size, said = REFUSED[arch]
    with pytest.raises(UserError, match=said):
        load(arch, words, size)
