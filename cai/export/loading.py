"""How an exported assistant is loaded without this project, as code for its card."""

from __future__ import annotations

from cai.config import Dtype, ModelConfig, ModelSource, Quantization
from cai.export.models import BASE, SHIPPED, Form
from cai.export.systems import System
from cai.lm.usage import DTYPES

ASKING = """
talk = [{"role": "user", "content": PROMPT}]
inputs = tokenizer.apply_chat_template(
    talk, add_generation_prompt=True, return_dict=True, return_tensors="pt"
)
ids = model.generate(**inputs, max_new_tokens=200)
reply = tokenizer.decode(ids[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True)"""
QUANTIZED = {
    Quantization.nf4: 'BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", '
    "bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype={})",
    Quantization.int8: "BitsAndBytesConfig(load_in_8bit=True)",
}


def loading(system: System, form: Form) -> str:
    """Write code for transformers, and the command for vLLM."""
    code, command = (
        (_merged(), "vllm serve THIS_FOLDER")
        if form.merged
        else (_adapter(system.base), _serve_adapter(system))
    )
    sampled = (
        "`THIS_FOLDER` is where this file lies. "
        f"Replies are sampled at temperature {system.base.temperature:g}, as its "
        "`generation_config.json` says, which also names every token that ends a reply."
    )
    return f"```python\n{code}\n{ASKING}\n```\n\n```\n{command}\n```\n\n{sampled}"


def _merged() -> str:
    return "\n".join([
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        "tokenizer = AutoTokenizer.from_pretrained(THIS_FOLDER)",
        "model = AutoModelForCausalLM.from_pretrained(THIS_FOLDER).eval()",
    ])  # fmt: skip


def _adapter(base: ModelConfig) -> str:
    quantized = base.quantization is not Quantization.none
    names = ["AutoModelForCausalLM", "AutoTokenizer", "GenerationConfig"]
    names += ["BitsAndBytesConfig"] if quantized else []
    options = [_where(base), f"dtype={_dtype(base.dtype)}"]
    if base.revision and base.source is ModelSource.hub:
        options.append(f"revision={base.revision!r}")
    if quantized:
        made = QUANTIZED[base.quantization].format(_dtype(base.dtype))
        options.append(f"quantization_config={made}")
    listed = "".join(f"    {option},\n" for option in options)
    return "\n".join([
        "import torch",
        "from peft import PeftModel",
        f"from transformers import {', '.join(sorted(names))}",
        "",
        "tokenizer = AutoTokenizer.from_pretrained(THIS_FOLDER)",
        f"model = AutoModelForCausalLM.from_pretrained(\n{listed})",
        "model.generation_config = GenerationConfig.from_pretrained(THIS_FOLDER)",
        "model = PeftModel.from_pretrained(model, THIS_FOLDER).eval()",
    ])  # fmt: skip


def _where(base: ModelConfig) -> str:
    """Write where the base is, as an expression; a local folder's path is left to the reader."""
    if base.source in SHIPPED:
        return f'f"{{THIS_FOLDER}}/{BASE}"'
    return repr(base.path) if base.source is ModelSource.hub else "BASE"


def _dtype(dtype: Dtype) -> str:
    return DTYPES[dtype]


def _serve_adapter(system: System) -> str:
    base = system.base
    if base.source in SHIPPED:
        where = f"THIS_FOLDER/{BASE}"
    else:
        where = base.path if base.source is ModelSource.hub else "BASE"
    pinned = f" --revision {base.revision}" if base.source is ModelSource.hub else ""
    return (
        f"vllm serve {where}{pinned} --generation-config THIS_FOLDER \\\n"
        "    --chat-template THIS_FOLDER/chat_template.jinja \\\n"
        f"    --enable-lora --max-lora-rank {base.lora.rank} "
        f"--lora-modules {system.name}=THIS_FOLDER"
    )
