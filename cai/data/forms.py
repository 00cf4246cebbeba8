r"""The forms in which people keep prompts, replies and comparisons, and the records made of them.

A *prompt* is a text, ``Human: ...\n\nAssistant: ...``, or messages; in a column ``prompt`` or
``messages`` (of which a last reply of the assistant's is no part), or what ``chosen`` and
``rejected`` share. A *reply* is ``response`` or ``completion``, or the last message. The two sides
of a *comparison* are replies, or whole dialogues as texts or messages.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cai.data.records import Comparison, Demonstration, Example, Prompt
from cai.data.values import quoted, text_of
from cai.dialogue import Conversation, Role, check_prompt, from_text, read_messages, read_prompt

PROMPT, REPLY, SIDES = ("prompt", "messages"), ("response", "completion"), ("chosen", "rejected")
COLUMNS = (
    *("id", "kind", *PROMPT, *REPLY, *SIDES, "probability"),
    *("critique", "revision", "reasoning", "worse", "principle", "comparison_principle"),
)
"""All columns that are read."""
LONGEST_ID = 200

Row = Mapping[str, Any]


@dataclass
class Forms:
    """Makes records of the rows of one file, which are to be of one form.

    Attributes:
        kind: Of rows that name none, and what made-up ids begin with; None: a row must have an id
            and a kind.
        source: Of comparisons.
        prefix: What is put before the ids that rows have, so that two files may both begin at 1.
    """

    kind: str | None = None
    source: str = ""
    prefix: str = ""
    _known: dict[str, int] = field(default_factory=dict)
    _form: str | None = None

    def prompt(self, row: Row) -> Prompt:
        """Read a prompt."""
        columns = PROMPT if any(row.get(name) is not None for name in PROMPT) else SIDES
        return self._accepted(row, self._prompt(row, prompt_of(row)), columns)

    def example(self, row: Row) -> Example:
        """Read a prompt and a good reply."""
        conversation, response = _answered(row)
        prompt = self._accepted(row, self._prompt(row, conversation), (*PROMPT, *REPLY, *SIDES))
        return Example(prompt, response)

    def comparison(self, row: Row) -> Comparison:
        """Read two replies to a prompt."""
        conversation, chosen, rejected = _sides(row)
        probability = _probability(row.get("probability"))
        if chosen == rejected and probability != 0.5:
            raise ValueError("'chosen' and 'rejected' are the same reply")
        prompt = self._accepted(row, self._prompt(row, conversation), (*PROMPT, *SIDES))
        return Comparison(prompt, chosen, rejected, probability, self.source)

    def demonstration(self, row: Row) -> Demonstration:
        """Read a flawed reply with its critique, revision and comparison."""
        given = [_text(row, key) for key in ("response", "critique", "revision", "reasoning")]
        optional = [
            None if row.get(key) is None else _text(row, key)
            for key in ("worse", "principle", "comparison_principle")
        ]
        if not ("{first}" in given[-1] and "{second}" in given[-1]):
            raise ValueError("'reasoning' should speak of {first} and {second}")
        prompt = self._accepted(row, self._prompt(row, prompt_of(row)), PROMPT)
        return Demonstration(prompt, *given, *optional)

    def _prompt(self, row: Row, conversation: Conversation) -> Prompt:
        kind, name = _name(row, "kind") or self.kind, _name(row, "id")
        if kind is None or (name is None and self.kind is None):
            raise KeyError("id" if name is None else "kind")
        if name is None:
            return Prompt(derived_id(self.kind or kind, conversation), kind, conversation)
        return Prompt(self.prefix + name, kind, conversation)

    def _accepted(self, row: Row, prompt: Prompt, columns: Sequence[str]) -> Prompt:
        """Return the prompt of a row that is like those before, if no other goes by its id."""
        form = _form_of(row, columns)
        if self._form not in {None, form}:
            raise ValueError(f"it has {form}, and rows before it {self._form}: keep to one form")
        digest = hash(prompt.conversation)
        if self._known.get(prompt.id, digest) != digest:
            raise ValueError(f"the id {quoted(prompt.id)} is that of another prompt before it")
        self._form, self._known[prompt.id] = form, digest
        return prompt


def derived_id(kind: str, conversation: Conversation) -> str:
    """Name a prompt by its words."""
    return f"{kind}-{hashlib.sha256(repr(conversation).encode()).hexdigest()[:12]}"


def prompt_of(row: Row) -> Conversation:
    """Find the prompt of a row of any form.

    Raises:
        ValueError: If there is none, or it is malformed.
    """
    if row.get("prompt") is not None:
        return read_prompt(_unix(row["prompt"]))
    if row.get("messages") is not None:
        talk = _talk(row, "messages")
        return check_prompt(talk[:-1] if talk[-1].role is Role.ASSISTANT else talk)
    if row.get("chosen") is not None and row.get("rejected") is not None:
        return _sides(row)[0]
    raise ValueError("it has neither 'prompt' nor 'messages', nor both 'chosen' and 'rejected'")


def _answered(row: Row) -> tuple[Conversation, str]:
    """Find the prompt and the good reply of a row of any form."""
    for name in ("response", "completion"):
        if row.get(name) is not None:
            prompt = prompt_of(row)
            return prompt, _reply(row[name], name, prompt)
    if row.get("chosen") is not None:
        prompt, chosen, _ = _sides(row)
        return prompt, chosen
    if row.get("messages") is None:
        raise KeyError("response")
    talk = _talk(row, "messages")
    if talk[-1].role is not Role.ASSISTANT:
        raise ValueError("'messages' should end with the assistant's, or 'response' be given")
    return check_prompt(talk[:-1]), talk[-1].text


def _sides(row: Row) -> tuple[Conversation, str, str]:
    """Find the prompt and both replies of a comparison."""
    for name in ("chosen", "rejected"):
        if name not in row:
            raise KeyError(name)
    if row.get("prompt") is not None or row.get("messages") is not None:
        prompt = prompt_of({key: row[key] for key in ("prompt", "messages") if key in row})
        chosen, rejected = (_reply(row[name], name, prompt) for name in ("chosen", "rejected"))
        return prompt, chosen, rejected
    one, other = _talk(row, "chosen"), _talk(row, "rejected")
    if one[-1].role is not Role.ASSISTANT or other[-1].role is not Role.ASSISTANT:
        raise ValueError("a side does not end with the assistant")
    if one[:-1] != other[:-1]:
        raise ValueError("the sides differ before the last reply")
    return check_prompt(one[:-1]), one[-1].text, other[-1].text


def _talk(row: Row, name: str) -> Conversation:
    """Read a whole dialogue, a text or messages."""
    value = _unix(row[name])
    if not isinstance(value, str):
        if not isinstance(value, list):
            raise ValueError(f"{name!r} should be a text or a list of messages")
        return read_messages(value)
    if "Human:" not in value:
        raise ValueError(
            f"{name!r} is no dialogue 'Human: ... Assistant: ...', and no 'prompt' is beside it"
        )
    return from_text(value)


def _reply(value: object, name: str, prompt: Conversation) -> str:
    """Take the reply out of a column: a text, or a dialogue that ends with it."""
    value = _unix(value)
    if isinstance(value, list):
        return _last(value, name, prompt)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name!r} should be a text that is not empty, or messages")
    if value.lstrip().startswith("Human:"):
        try:
            talk = from_text(value.strip())
        except ValueError:
            return value.strip()
        if talk[:-1] == prompt:
            return talk[-1].text
    return value.strip()


def _last(messages: Sequence[object], name: str, prompt: Conversation) -> str:
    alone = len(messages) == 1
    opening = [{"role": Role.HUMAN.value, "content": "?"}] if alone else []
    talk = read_messages([*opening, *messages])
    if talk[-1].role is not Role.ASSISTANT:
        raise ValueError(f"{name!r} should end with the assistant's message")
    if not alone and talk[:-1] != prompt:
        raise ValueError(f"{name!r} should begin with the messages of 'prompt'")
    return talk[-1].text


def _unix(value: object) -> object:
    """Return a text with the line ends that the published dialogues have."""
    return value.replace("\r\n", "\n") if isinstance(value, str) else value


def _text(row: Row, key: str) -> str:
    return text_of({key: _unix(row[key])}, key)


def _name(row: Row, key: str) -> str | None:
    """Return an id or a kind, which may be a number; None if there is none."""
    value = row.get(key)
    if value is None:
        return None
    text = str(value).strip() if isinstance(value, str | int) else ""
    if not text or len(text) > LONGEST_ID:
        raise ValueError(f"{key!r} should be a text of at most {LONGEST_ID} characters, not empty")
    return text


def _probability(value: object) -> float:
    """Read how probable it is that the chosen reply is the better one; 1 where it is not said."""
    if value is None:
        return 1.0
    number: Any = value
    if isinstance(value, str):  # a cell of a table
        try:
            number = float(value)
        except ValueError:
            number = None
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise ValueError(f"'probability' is {quoted(value)} and should be a number")
    if not 0 <= number <= 1:
        raise ValueError(f"'probability' is {quoted(value)} and should be in [0, 1]")
    return float(number)


def _form_of(row: Row, columns: Sequence[str]) -> str:
    """Name the form of a row: its columns, and which of them are texts or messages."""
    kinds: dict[type, str] = {str: "text", list: "messages"}
    return ", ".join(
        f"{name} ({kinds.get(type(row[name]), 'other')})"
        for name in columns
        if row.get(name) is not None
    )
