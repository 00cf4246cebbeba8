"""A tokenizer's chat template: rendered as it stands, and checked before anything relies on it."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from cai.errors import UserError

TODAY = datetime(2024, 7, 26)
"""The day that every template believes it to be, so that a prompt is the same tomorrow."""
PATIENCE = 10.0
"""Seconds after which a template is taken to loop for ever."""
ASKS_THE_DATE = re.compile(r"\bstrftime_now\s*\(\s*(.*?)\s*\)")
LITERAL = re.compile(r"""(["'])([^"'{}\n]*%[^"'{}\n]*)\1""")
WORDS = ("heron", "willow", "pebble")
"""What is said in the dialogue that a template is tried on."""
INSTEAD = "set model.dialect=text, or give the tokenizer another template"

Messages = Sequence[Mapping[str, str]]


class ChatTemplate:
    """Renders messages; knows what stands around the assistant's words.

    Attributes:
        before: How a prompt goes on after the human's last word.
        lead: What comes between a prompt and the assistant's first word; mostly empty.
        after: What follows the assistant's last word.
        options: Variables that it is given.
        dates: The day it believes it to be, in each form that it may ask for; mostly empty.
        probe: A dialogue as the template writes it, by which two templates can be told apart.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, options: Mapping[str, Any]) -> None:
        """Try the template on a dialogue of three turns.

        Raises:
            UserError: If it fails, never ends, loses what is said or knows none of the options.
        """
        if not tokenizer.chat_template:
            raise UserError("the model's tokenizer has no chat template: set model.dialect=text")
        self._tokenizer = tokenizer
        source = str(tokenizer.get_chat_template())
        for name in options:
            if name not in source:
                raise UserError(
                    f"model.template_options.{name} is unknown to the tokenizer's chat template: "
                    "leave it out"
                )
        # A template may look a date up, but the library hands it no function of ours.
        self._source = ASKS_THE_DATE.sub(r"fixed_dates[\1]", source)
        asks = self._source != source
        forms = LITERAL.findall(source) if asks else []
        self.dates = {form: TODAY.strftime(form) for _, form in forms}
        thinking = {"enable_thinking": False} if "enable_thinking" in source else {}
        self.options = {**thinking, **options}
        talk = [
            {"role": role, "content": word}
            for role, word in zip(("user", "assistant", "user"), WORDS, strict=True)
        ]
        self.probe = self._in_time(talk, True)
        _check_turns(self.probe, WORDS)
        self.before = self.probe[self.probe.index(WORDS[2]) + len(WORDS[2]) :]
        if self.before.count("<think>") > self.before.count("</think>"):
            raise UserError(
                "the tokenizer's chat template opens a block of thinking before every reply: "
                "switch that off by model.template_options, or use a model that answers directly"
            )
        self.lead, self.after = self._around_a_reply(talk[:2])
        self.thinks = "</think>" in source or "</think>" in tokenizer.get_added_vocab()

    def render(self, messages: Messages, prompt: bool = True) -> str:
        """Write messages; a prompt ends where the assistant is to speak.

        Raises:
            UserError: If the template refuses them.
        """
        try:
            text = self._tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                tokenize=False,
                add_generation_prompt=prompt,
                chat_template=self._source,
                fixed_dates=self.dates,
                **self.options,
            )
        except (TemplateError, ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"the tokenizer's chat template fails on a dialogue ({error}): {INSTEAD}"
            ) from error
        return str(text)

    def _around_a_reply(self, talk: Messages) -> tuple[str, str]:
        """Return what stands between a prompt and the reply to it, and what follows the reply."""
        asked, whole = self._in_time(talk[:1], True), self._in_time(talk, False)
        _check_turns(whole, WORDS[:2])
        start = whole.index(WORDS[1])
        lead = whole[len(asked) : start] if whole.startswith(asked) else ""
        return lead, whole[start + len(WORDS[1]) :]

    def _in_time(self, messages: Messages, prompt: bool) -> str:
        """Render in a thread that is left behind if it does not come back."""
        found: list[str | UserError] = []

        def work() -> None:
            try:
                found.append(self.render(messages, prompt))
            except UserError as error:
                found.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(PATIENCE)
        if not found:
            raise UserError(f"the tokenizer's chat template never comes to an end: {INSTEAD}")
        if isinstance(found[0], UserError):
            raise found[0]
        return found[0]


def _check_turns(text: str, words: Sequence[str]) -> None:
    places = [text.find(word) for word in words]
    for number, (word, place) in enumerate(zip(words, places, strict=True), start=1):
        if place < 0:
            raise UserError(
                f"the tokenizer's chat template leaves out turn {number} of a dialogue: {INSTEAD}"
            )
        if text.count(word) > 1:
            raise UserError(
                f"the tokenizer's chat template writes turn {number} of a dialogue twice: {INSTEAD}"
            )
    if places != sorted(places):
        raise UserError(
            f"the tokenizer's chat template puts the turns of a dialogue in another order: "
            f"{INSTEAD}"
        )
