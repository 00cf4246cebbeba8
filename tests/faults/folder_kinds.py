"""Kinds of model folders that somebody else made badly, or on purpose."""

from __future__ import annotations

import os

from .folder_changes import (
    Change,
    adapter,
    auto_map,
    config,
    cut,
    directory,
    drop,
    edit_tokenizer,
    extra,
    file_,
    generation_code,
    header,
    integers,
    known_type_with_code,
    link,
    overlap,
    pickled,
    pipe,
    poison,
    reshape,
    shards,
    template,
    tokenizer,
    tokenizer_code,
)

DEEP = "[" * 100_000 + "]" * 100_000
LOOP = "{% for i in range(10**9) %}{% for j in range(10**9) %}x{% endfor %}{% endfor %}"
ESCAPE = (
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.system('touch CANARY') }}",
    "{{ self.__init__.__globals__.__builtins__.open('CANARY', 'w') }}",
    "{{ lipsum.__globals__['os'].popen('touch CANARY').read() }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os }}",
)


def _escape(text: str) -> Change:
    return lambda folder: folder.template(text.replace("CANARY", str(folder.canary)))


KINDS: dict[str, dict[str, Change]] = {
    "code": {
        "auto_map of config, model and tokenizer": auto_map,
        "auto_map beside a known type": known_type_with_code,
        "auto_map of the tokenizer": tokenizer_code,
        "custom_generate": generation_code,
        "attention from a kernel repository": config(_attn_implementation="a/b"),
        "architecture with a path": config(architectures=["../evil.Evil"]),
        "tokenizer class with a path": tokenizer(tokenizer_class="os.system"),
        **{f"template escapes {n}": _escape(text) for n, text in enumerate(ESCAPE)},
    },
    "pickle": {
        "pytorch_model.bin": pickled("pytorch_model.bin"),
        "pytorch_model.bin beside": pickled("pytorch_model.bin", keep=True),
        "in the name of safetensors": pickled("model.safetensors", keep=True),
        "consolidated.pth": pickled("consolidated.00.pth"),
        "training_args.bin": pickled("training_args.bin", keep=True),
        "spiece.model": pickled("spiece.model", keep=True),
        "tokenizer.model": pickled("tokenizer.model", keep=True),
        "shards": shards({"model.norm.weight": "pytorch_model.bin"}),
    },
    "places": {
        "config is a link out": link("config.json", "/etc/passwd"),
        "weights are a link out": link("model.safetensors", "/etc/passwd"),
        "weights are an endless device": link("model.safetensors", "/dev/zero"),
        "config is an endless device": link("config.json", "/dev/zero"),
        "a link to itself": link("tokenizer.json", "tokenizer.json"),
        "weights are a pipe": pipe("model.safetensors"),
        "config is a pipe": pipe("config.json"),
        "tokenizer is a pipe": pipe("tokenizer.json"),
        "weights are a folder": directory("model.safetensors"),
        "config is a folder": directory("config.json"),
        "tokenizer is a folder": directory("tokenizer.json"),
        "shards outside": shards({"model.norm.weight": "../../../../etc/passwd"}),
        "an adapter's config beside": adapter,
    },
    "weights": {
        "empty": file_("model.safetensors", b""),
        "cut": cut,
        "garbage": file_("model.safetensors", os.urandom(4096)),
        "header of 2^63 bytes": header(b"{}", 1 << 63),
        "header longer than the file": header(b"{}", 10_000),
        "header is no JSON": header(b"{nope"),
        "header is deep": header(DEEP.encode()),
        "tensors overlap": overlap,
        "a tensor of 2^60 numbers": header(
            b'{"a":{"dtype":"F32","shape":[1152921504606846976],"data_offsets":[0,16]}}'
        ),
        "one is missing": drop,
        "one too many": extra,
        "another shape": reshape,
        "integers": integers,
        "NaN": poison(float("nan")),
        "infinity": poison(float("inf")),
        "index without shards": shards({"model.norm.weight": "model-1.safetensors"}),
        "index of nothing": shards({}),
        "none at all": lambda folder: folder.gone("model.safetensors") and None,
    },
    "config": {
        "empty": file_("config.json", ""),
        "no JSON": file_("config.json", "{nope"),
        "a list": file_("config.json", "[]"),
        "null": file_("config.json", "null"),
        "deep": file_("config.json", DEEP),
        "5,000 digits": file_("config.json", '{"model_type": "llama", "x": ' + "9" * 5000 + "}"),
        "not UTF-8": file_("config.json", b'{"model_type": "\xff"}'),
        "unknown type": config(model_type="nope"),
        "type is a number": config(model_type=3),
        "type is a list": config(model_type=["llama"]),
        "encoder and decoder": file_("config.json", '{"model_type": "t5"}'),
        "reads images": file_("config.json", '{"model_type": "llava"}'),
        "no layers": config(num_hidden_layers=0),
        "negative layers": config(num_hidden_layers=-1),
        "10^9 layers": config(num_hidden_layers=10**9),
        "hidden size 0": config(hidden_size=0),
        "hidden size 10^9": config(hidden_size=10**9),
        "hidden size is a text": config(hidden_size="64"),
        "hidden size is null": config(hidden_size=None),
        "hidden size is NaN": config(hidden_size=float("nan")),
        "vocabulary of 10^12": config(vocab_size=10**12),
        "negative vocabulary": config(vocab_size=-5),
        "heads that do not divide": config(num_attention_heads=7),
        "no heads": config(num_attention_heads=0),
        "key heads that do not divide": config(num_key_value_heads=3),
        "another activation": config(hidden_act="nope"),
        "rope garbage": config(rope_scaling={"type": "nope", "factor": "x"}),
        "rope is a text": config(rope_parameters="x"),
        "NaN in the norm": config(rms_norm_eps=float("nan")),
        "negative positions": config(max_position_embeddings=-1),
        "dtype garbage": config(dtype="evil", torch_dtype="evil"),
        "quantised by nobody": config(quantization_config={"quant_method": "nope"}),
        "quantised by a list": config(quantization_config=[]),
        "an untied head": config(tie_word_embeddings=False),
        "pad beyond the vocabulary": config(pad_token_id=10**6),
        "negative pad": config(pad_token_id=-7),
        "ids are texts": config(eos_token_id="x", bos_token_id=[]),
    },
    "tokenizer": {
        "none": lambda folder: folder.gone("tokenizer.json") and None,
        "empty": file_("tokenizer.json", ""),
        "garbage": file_("tokenizer.json", os.urandom(999)),
        "deep": file_("tokenizer.json", DEEP),
        "a list": file_("tokenizer.json", "[]"),
        "model of no kind": edit_tokenizer(lambda t: t.update(model={"type": "nope"})),
        "ids beyond the embeddings": edit_tokenizer(
            lambda t: t["model"]["vocab"].update({"far": 10**6})
        ),
        "an id of 2^31": edit_tokenizer(lambda t: t["model"]["vocab"].update({"far": 2**31})),
        "a negative id": edit_tokenizer(lambda t: t["model"]["vocab"].update({"far": -1})),
        "no vocabulary": edit_tokenizer(lambda t: t["model"].update(vocab={})),
        "merges of nothing": edit_tokenizer(lambda t: t["model"].update(merges=[["q", "zz"]])),
        "a pattern that explodes": edit_tokenizer(
            lambda t: t.update(
                pre_tokenizer={
                    "type": "Split",
                    "pattern": {"Regex": "(a+)+$"},
                    "behavior": "Isolated",
                    "invert": False,
                }
            )
        ),
        "a pattern that is none": edit_tokenizer(
            lambda t: t.update(normalizer={"type": "Replace", "pattern": {"Regex": "("}})
        ),
        "a normaliser that multiplies": edit_tokenizer(
            lambda t: t.update(
                normalizer={"type": "Replace", "pattern": {"String": "e"}, "content": "e" * 10**6}
            )
        ),
        "config is no JSON": file_("tokenizer_config.json", "{nope"),
        "config is a list": file_("tokenizer_config.json", "[]"),
        "config is deep": file_("tokenizer_config.json", DEEP),
        "class of nobody": tokenizer(tokenizer_class="NopeTokenizer"),
        "class is a number": tokenizer(tokenizer_class=3),
        "class of another": tokenizer(tokenizer_class="T5Tokenizer"),
        "end is a number": tokenizer(eos_token=3),
        "end is null": tokenizer(eos_token=None),
        "end is a novel": tokenizer(eos_token="x" * 10**6),
        "longest is a text": tokenizer(model_max_length="x"),
        "special tokens garbage": file_("special_tokens_map.json", "[3]"),
    },
    "template": {
        "none": template(""),
        "is a number": tokenizer(chat_template=3),
        "no Jinja": template("{% for %}"),
        "loops": template(LOOP),
        "loops in an expression": template("{{ range(10**10) | sum }}"),
        "swells": template("{{ 'x' * 10**11 }}"),
        "swells step by step": template(
            "{% set ns = namespace(x='xx') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}"
            "{% endfor %}{{ ns.x }}"
        ),
        "a power": template("{{ 9**9**9 }}"),
        "calls itself": template("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
        "deep": template("{{" + "(" * 5000 + "1" + ")" * 5000 + "}}"),
        "raises": template("{{ raise_exception('\x1b[2Jno') }}"),
        "divides by zero": template("{{ 1 / 0 }}"),
        "says nothing": template("{# nothing #}"),
        "leaves turns out": template("{{ messages[0].content }}"),
        "says all twice": template("{% for m in messages * 2 %}{{ m.content }}{% endfor %}"),
        "undefined": template("{{ nope.nope.nope }}"),
        "knows no index": template("{{ messages[99].content }}"),
    },
    "generation": {
        "no JSON": file_("generation_config.json", "{nope"),
        "a list": file_("generation_config.json", "[]"),
        "ends beyond the vocabulary": file_("generation_config.json", '{"eos_token_id": 99999999}'),
        "negative ends": file_("generation_config.json", '{"eos_token_id": [-1]}'),
        "ends are texts": file_("generation_config.json", '{"eos_token_id": ["x", null]}'),
        "ends are deep": file_("generation_config.json", '{"eos_token_id": [[2]]}'),
        "temperature is NaN": file_("generation_config.json", '{"temperature": NaN}'),
    },
}
"""What is wrong, by where it is."""
