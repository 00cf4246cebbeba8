"""What a model needs beside its weights to speak elsewhere as it does here: files of transformers.

A chat template is given what this project would hand to it on every call, so that a program that
knows nothing of that writes the same prompts.
"""

from __future__ import annotations

import copy

from transformers import GenerationConfig, PreTrainedTokenizerBase

from cai.config import Dialect
from cai.lm.chat import ChatFormat, puts_bos
from cai.lm.template import ASKS_THE_DATE

TEXT = (
    "{% for message in messages %}"
    "{{ '' if loop.first else '\n\n' }}"
    "{{ 'Human: ' if message['role'] == 'user' else 'Assistant: ' }}{{ message['content'] }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n\nAssistant:' }}{% endif %}"
)
"""The plain text format as a template."""
NO_CUT = 0
"""Value of ``top_k`` that lets every token be sampled; the library's own is 50."""


def template_alone(chat: ChatFormat) -> str:
    """Write the chat template with its options, and the day that it believes it to be, inside."""
    if chat.dialect is Dialect.text:
        return _start(chat.tokenizer) + TEXT
    source = ASKS_THE_DATE.sub(r"fixed_dates[\1]", str(chat.tokenizer.get_chat_template()))
    given = {**({"fixed_dates": dict(chat.dates)} if chat.dates else {}), **chat.template_options}
    return "".join(f"{{% set {key} = {value!r} %}}" for key, value in given.items()) + source


def _start(tokenizer: PreTrainedTokenizerBase) -> str:
    """Write what a text begins with, so that it is encoded as the tokenizer alone begins it.

    Some tokenizers put a blank before a text, and none before what follows a control token.
    """
    if not puts_bos(tokenizer):
        return ""
    wanted = tokenizer("Human:")["input_ids"]
    for blank in ("", " "):
        written = f"{tokenizer.bos_token}{blank}Human:"
        if tokenizer(written, add_special_tokens=False)["input_ids"] == wanted:
            return "{{ bos_token }}" + blank
    return "{{ bos_token }}"


def tokenizer_alone(chat: ChatFormat) -> PreTrainedTokenizerBase:
    """Return a tokenizer whose own template writes what this project writes."""
    tokenizer: PreTrainedTokenizerBase = copy.deepcopy(chat.tokenizer)
    tokenizer.chat_template = template_alone(chat)
    return tokenizer


def generation_alone(chat: ChatFormat, temperature: float) -> GenerationConfig:
    """Say when a reply ends and how it is sampled, as in training and evaluation."""
    tokenizer = chat.tokenizer
    pad = chat.stop_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    return GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=sorted(chat.stop_ids),
        pad_token_id=pad,
        do_sample=True,
        temperature=temperature,
        top_k=NO_CUT,
        top_p=1.0,
    )
