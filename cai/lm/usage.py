"""How a saved preference model is loaded and read without this project, as code for its card."""

from __future__ import annotations

from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

from cai.config import Dialect, Dtype
from cai.lm.chat import ChatFormat
from cai.lm.language_model import LanguageModel
from cai.lm.template import ASKS_THE_DATE

DTYPES = {Dtype.fp32: "torch.float32", Dtype.bf16: "torch.bfloat16"}
NO_CLASSIFIER = """# transformers has no sequence classifier for this architecture; read it with
# python -m cai.score --pm THIS_FOLDER IN.jsonl OUT.jsonl"""


def has_classifier(network: PreTrainedModel) -> bool:
    """Tell whether transformers has a sequence classifier for a model's architecture."""
    return type(network.config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING


def padding(chat: ChatFormat) -> str | None:
    """Choose the token that fills up rows: any control token but the end of a turn.

    A sequence classifier reads the last token that is no padding, and ours is trained to be read
    at the end of the turn. None if there is no other token.
    """
    tokenizer = chat.tokenizer
    added = tokenizer.added_tokens_decoder
    special = [str(token) for token in added.values() if token.special]
    for token in (tokenizer.pad_token, tokenizer.unk_token, tokenizer.bos_token, *special):
        if token is not None and tokenizer.convert_tokens_to_ids(str(token)) != chat.stop_id:
            return str(token)
    return None


def padded_tokenizer(tokenizer: PreTrainedTokenizerBase, chat: ChatFormat) -> int | None:
    """Let a tokenizer pad rows as a classifier expects; return the id."""
    token = padding(chat)
    if token is not None:
        tokenizer.pad_token = token
    return None if token is None else int(tokenizer.pad_token_id)


def scoring_code(model: LanguageModel, whole: bool, mean: float) -> str:
    """Write the code that gives a reply the score that this project gives it.

    Args:
        model: The network that the preference model is on.
        whole: Whether all its weights are in the folder, or an adapter alone.
        mean: Held-out mean, taken off.
    """
    if not has_classifier(model.network):
        return NO_CLASSIFIER
    pad = padding(model.chat)
    base, shown = ("THIS_FOLDER" if whole else "BASE"), f", pad_token={pad!r}" if pad else ""
    options = "" if whole else f"num_labels=1, dtype={DTYPES[model.config.dtype]}, "
    lines = [
        *(["import re", ""] if model.chat.dates else []),
        "import torch",
        *([] if whole else ["from peft import PeftModel"]),
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer",
        "",
        f"tokenizer = AutoTokenizer.from_pretrained({base}{shown})",
        "model = AutoModelForSequenceClassification.from_pretrained(",
        f"    {base}, {options}pad_token_id=tokenizer.pad_token_id" if pad
        else f"    {base}, {options}pad_token_id=None",
        ").eval()",
        *([] if whole else ["model = PeftModel.from_pretrained(model, THIS_FOLDER).eval()"]),
        "",
        *_reading(model.chat),
        "with torch.no_grad():",
        f"    score = float(model(**inputs).logits) - {mean!r}",
    ]  # fmt: skip
    return "\n".join(lines)


def _reading(chat: ChatFormat) -> list[str]:
    """Write how a dialogue becomes ids, its last turn ended."""
    end = repr(chat.tokenizer.convert_ids_to_tokens(chat.stop_id))
    if chat.dialect is Dialect.text:
        return [
            'text = "Human: " + PROMPT + "\\n\\nAssistant: " + REPLY',
            f'inputs = tokenizer(text + {end}, return_tensors="pt")',
        ]
    told = [
        f"fixed_dates = {dict(chat.dates)!r}  # the day that it was told in training",
        "asked = tokenizer.chat_template",
        f'tokenizer.chat_template = re.sub({ASKS_THE_DATE.pattern!r}, r"fixed_dates[\\1]", asked)',
    ]
    known = ", fixed_dates=fixed_dates" if chat.dates else ""
    known += "".join(f", {name}={value!r}" for name, value in chat.template_options.items())
    return [
        *(told if chat.dates else []),
        'talk = [{"role": "user", "content": PROMPT}]',
        "text = tokenizer.apply_chat_template(",
        f"    talk, tokenize=False, add_generation_prompt=True{known}",
        ")",
        f"text += {chat.lead!r} + REPLY + {end}" if chat.lead else f"text += REPLY + {end}",
        'inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt")',
    ]
