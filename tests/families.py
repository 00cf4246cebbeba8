"""Tiny random models of many families, with tokenizers of the structure that is published."""

from typing import NamedTuple

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from cai.config import Dialect

LOOP = "{% for m in messages %}"
END = "{% endfor %}"
CHATML = (
    "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}",
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
)
NOT_THINKING = (
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
TEMPLATES = {
    "llama2": "{{ bos_token }}" + LOOP + "{% if m.role == 'user' %}"
    "{{ ('' if loop.first else bos_token) + '[INST] ' + m.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content + ' ' + eos_token }}{% endif %}" + END,
    "llama3": "{{ bos_token }}{{ '<|start_header_id|>system<|end_header_id|>\n\nToday Date: ' + "
    "strftime_now('%d %b %Y') + '<|eot_id|>' }}" + LOOP
    + "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + "
    "'<|eot_id|>' }}" + END
    + "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
    "mistral": "{{ bos_token }}" + LOOP + "{% if m.role == 'user' %}"
    "{{ '[INST]' + m.content + '[/INST]' }}{% elif m.role == 'assistant' %}"
    "{{ ' ' + m.content + eos_token }}{% else %}{{ raise_exception('no such role') }}{% endif %}"
    + END,
    "qwen2": LOOP + "{% if loop.first and m.role != 'system' %}"
    "{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}" + CHATML[0] + END + CHATML[1],
    "qwen3": LOOP + "{% set said = m.content.split('</think>')[-1].lstrip('\n') %}"
    "{{ '<|im_start|>' + m.role + '\n' + ('<think>\n\n</think>\n\n' if m.role == 'assistant' and "
    "loop.last else '') + said + '<|im_end|>\n' }}" + END + NOT_THINKING,
    "gemma": "{{ bos_token }}" + LOOP + "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' "
    "else m.role) + '\n' + m.content | trim + '<end_of_turn>\n' }}" + END
    + "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
    "phi3": LOOP + "{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}" + END
    + "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}",
    "olmo2": "{{ bos_token }}" + LOOP + "{{ '<|' + m.role + '|>\n' + m.content }}"
    "{{ (eos_token if loop.last else eos_token + '\n') if m.role == 'assistant' else '\n' }}" + END
    + "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
    "smollm3": "{{ '<|im_start|>system\nToday Date: ' + strftime_now('%d %B %Y') + '\nReasoning "
    "Mode: ' + ('/think' if enable_thinking else '/no_think') + '<|im_end|>\n' }}" + LOOP
    + "{{ '<|im_start|>' + m.role + '\n' + ('<think>\n\n</think>\n' if m.role == 'assistant' and "
    "not enable_thinking else '') + m.content + '<|im_end|>\n' }}" + END
    + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' + ('' if enable_thinking else "
    "'<think>\n\n</think>\n') }}{% endif %}",
    "granite": LOOP + "{{ '<|start_of_role|>' + m.role + '<|end_of_role|>' + m.content + "
    "'<|end_of_text|>\n' }}" + END
    + "{% if add_generation_prompt %}{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}",
}  # fmt: skip


class Words(NamedTuple):
    """A tokenizer.

    Attributes:
        kind: ``bytes`` as GPT-2's; ``blank`` as Llama 2's, which puts a blank before a text;
            ``plain`` as Gemma's, which does not.
        controls: Control tokens, flagged as such in tokenizer.json.
        ends: Names of the beginning, the end and the padding among them.
        template: Of chats.
        added: Added tokens that are not flagged.
        front: Whether the beginning is put before a text.
    """

    kind: str
    controls: tuple[str, ...]
    ends: tuple[str | None, str, str | None]
    template: str | None
    added: tuple[str, ...] = ()
    front: bool = False


LLAMA = ("<unk>", "<s>", "</s>")
ML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
LLAMA3 = (
    "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"
)  # fmt: skip
WORDS = {
    "llama2": Words("blank", LLAMA, ("<s>", "</s>", None), TEMPLATES["llama2"], front=True),
    "llama3": Words("bytes", LLAMA3, (LLAMA3[0], "<|eot_id|>", None), TEMPLATES["llama3"],
                    front=True),
    "mistral": Words("blank", (*LLAMA, "[INST]", "[/INST]"), ("<s>", "</s>", None),
                     TEMPLATES["mistral"], front=True),
    "qwen2": Words("bytes", ML, (None, "<|im_end|>", "<|endoftext|>"), TEMPLATES["qwen2"]),
    "qwen3": Words("bytes", ML, (None, "<|im_end|>", "<|endoftext|>"), TEMPLATES["qwen3"],
                   ("<think>", "</think>")),
    "gemma": Words("plain", ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"),
                   ("<bos>", "<eos>", "<pad>"), TEMPLATES["gemma"], front=True),
    "phi3": Words("blank", (*LLAMA, "<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>"),
                  ("<s>", "<|endoftext|>", "<|endoftext|>"), TEMPLATES["phi3"]),
    "olmo2": Words("bytes", ("<|endoftext|>", "<|pad|>"),
                   ("<|endoftext|>", "<|endoftext|>", "<|pad|>"), TEMPLATES["olmo2"]),
    "neox": Words("bytes", ("<|endoftext|>", "<|padding|>"), (None, "<|endoftext|>", None), None,
                  ("  ", "    ")),
    "gpt2": Words("bytes", ("<|endoftext|>",), ("<|endoftext|>",) * 2 + (None,), None),
    "smollm3": Words("bytes", ML, (None, "<|im_end|>", "<|im_end|>"), TEMPLATES["smollm3"],
                     ("<think>", "</think>")),
    "granite": Words("bytes", ("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>"),
                     ("<|end_of_text|>", "<|end_of_text|>", "<|end_of_text|>"),
                     TEMPLATES["granite"]),
    "llamabase": Words("blank", LLAMA, ("<s>", "</s>", None), None, front=True),
}  # fmt: skip


class Family(NamedTuple):
    """A model: its type in transformers, its tokenizer, and what differs from a small Llama."""

    arch: str
    words: str
    size: dict
    stops: tuple[str, ...] = ()

    @property
    def dialect(self):
        return Dialect.chat if WORDS[self.words].template else Dialect.text


GROUPED = {"num_key_value_heads": 2}
EXPERTS = {"num_experts_per_tok": 2, "output_router_logits": False}
FAMILIES = {
    "Llama": Family("llama", "llama2", GROUPED),
    "Llama 3": Family("llama", "llama3", GROUPED, ("<|end_of_text|>", "<|eot_id|>")),
    "Mistral": Family("mistral", "mistral", {**GROUPED, "sliding_window": 64}),
    "Qwen2": Family("qwen2", "qwen2", GROUPED, ("<|im_end|>", "<|endoftext|>")),
    "Qwen3": Family("qwen3", "qwen3", {**GROUPED, "head_dim": 16}),
    "Gemma 3": Family("gemma3_text", "gemma", {
        **GROUPED, "head_dim": 16, "sliding_window": 24, "query_pre_attn_scalar": 16,
        "layer_types": ["sliding_attention", "full_attention"], "final_logit_softcapping": 3.0,
    }, ("<eos>", "<end_of_turn>")),
    "Gemma 2": Family("gemma2", "gemma", {
        **GROUPED, "head_dim": 16, "sliding_window": 24, "query_pre_attn_scalar": 16,
        "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0,
    }, ("<eos>", "<end_of_turn>")),
    "Phi-3": Family("phi3", "phi3", {
        **GROUPED, "sliding_window": 48, "original_max_position_embeddings": 8192,
    }, ("<|endoftext|>", "<|end|>", "<|assistant|>")),
    "OLMo 2": Family("olmo2", "olmo2", GROUPED),
    "GPT-NeoX": Family("gpt_neox", "neox", {}),
    "GPT-2": Family("gpt2", "gpt2", {}),
    "SmolLM3": Family("smollm3", "smollm3", {**GROUPED, "no_rope_layers": [1, 0]}),
    "Granite": Family("granite", "granite", {
        **GROUPED, "logits_scaling": 4.0, "embedding_multiplier": 6.0, "residual_multiplier": 0.5,
        "attention_multiplier": 0.2,
    }),
    "Mixtral": Family("mixtral", "mistral", {
        **GROUPED, **EXPERTS, "num_local_experts": 4, "sliding_window": None,
    }),
    "Qwen3-MoE": Family("qwen3_moe", "qwen3", {
        **GROUPED, **EXPERTS, "head_dim": 16, "num_experts": 4, "moe_intermediate_size": 32,
    }),
    "Llama base": Family("llama", "llamabase", GROUPED),
}  # fmt: skip
CONTEXT = 8192


def tokenizer(name):
    """Make a tokenizer whose words are bytes or letters, and letters after a blank."""
    words = WORDS[name]
    controls = [*words.controls, *words.added]
    if words.kind == "bytes":
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        blank, unknown = "\u0120", None
    else:
        letters = [f"<0x{n:02X}>" for n in range(256)] + ["\u2581"]
        letters += [chr(n) for n in range(33, 127)]
        blank, unknown = "\u2581", "<unk>"
    pairs = [(blank, chr(n)) for n in (*range(65, 91), *range(97, 123), 40)]
    vocabulary = dict.fromkeys([*controls, *letters, *(a + b for a, b in pairs)])
    vocabulary = {token: number for number, token in enumerate(vocabulary)}
    fallback = words.kind != "bytes"
    known = unknown if unknown in vocabulary else None
    inner = Tokenizer(
        models.BPE(vocab=vocabulary, merges=pairs, unk_token=known, byte_fallback=fallback)
    )
    if words.kind == "bytes":
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
    else:
        inner.decoder = decoders.Sequence(
            [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
        )
    if words.kind == "blank":
        inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    if words.kind == "plain":
        inner.normalizer = normalizers.Replace(" ", "\u2581")
    special = [AddedToken(t, special=True, normalized=False) for t in words.controls]
    inner.add_special_tokens(special)
    inner.add_tokens([AddedToken(t, special=False, normalized=False) for t in words.added])
    begin, end, pad = words.ends
    if words.front:
        inner.post_processor = TemplateProcessing(
            single=f"{begin} $A", special_tokens=[(begin, vocabulary[begin])]
        )
    given = {"bos_token": begin, "eos_token": end, "pad_token": pad}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=inner, **{key: value for key, value in given.items() if value}
    )
    if words.template:
        fast.chat_template = words.template
    return fast


def make(folder, name, **changes):
    """Save a random model of a family with its tokenizer; return the folder."""
    family, words = FAMILIES[name], tokenizer(FAMILIES[name].words)
    size = {
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": CONTEXT, **family.size, **changes,
    }  # fmt: skip
    ids = {f"{key}_token_id": getattr(words, f"{key}_token_id") for key in ("bos", "eos", "pad")}
    config = AutoConfig.for_model(family.arch, vocab_size=len(words), **ids, **size)
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():  # logits with a say
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    if family.stops:
        network.generation_config.eos_token_id = words.convert_tokens_to_ids(list(family.stops))
    network.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder
