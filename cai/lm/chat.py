"""From conversations to token ids and back; a text never becomes a control token."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from cai.config import Dialect
from cai.dialogue import Conversation, Role, Turn, to_messages, to_text
from cai.errors import UserError, has_panicked, is_out_of_memory
from cai.lm.template import ChatTemplate
from cai.terminal import one_line

THINKING_ENDS = "</think>"
TEXT_BEFORE = "\n\nAssistant:"
"""What stands before a reply in plain text."""
ANCHORS = ("\n", ":")
"""What a text may be encoded after where a tokenizer writes a text's beginning otherwise."""


@dataclass(frozen=True)
class ChatOptions:
    """What a model adds to its tokenizer.

    Attributes:
        stop_ids: Tokens that its generation config names as ends.
        template: Variables of the chat template.
    """

    stop_ids: frozenset[int] = frozenset()
    template: Mapping[str, Any] = field(default_factory=dict)


class PromptIds(list[int]):
    """The ids of a prompt, and the conversation that they are."""

    def __init__(self, ids: Iterable[int], conversation: Conversation) -> None:
        """Keep both."""
        super().__init__(ids)
        self.conversation = conversation


class ChatFormat:
    """How one tokenizer writes a dialogue.

    A prompt is rendered up to the point where the assistant speaks, a response is encoded as it
    would be in running text and ends with the token that ends a turn, so that
    ``prompt + response`` is the same list of ids in sampling, scoring and training, and that of
    the whole dialogue's rendering.

    Attributes:
        stop_id: Ends a turn in all that is learnt from.
        stop_ids: All tokens that end a sampled reply.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        dialect: Dialect,
        context: int,
        options: ChatOptions | None = None,
    ) -> None:
        """Use the tokenizer's own chat template, or the plain text format.

        Raises:
            UserError: If the template can't be used, or nothing ends a reply.
        """
        options = options or ChatOptions()
        self.tokenizer = tokenizer
        self.dialect = dialect
        self.context = context
        self._controls = control_tokens(tokenizer)
        self._initials = tuple({control[0] for control in self._controls})
        self._lengths: dict[Conversation, int] = {}
        self._template: ChatTemplate | None = None
        ends = tokenizer.eos_token_id
        if dialect is Dialect.chat:
            self._template = ChatTemplate(tokenizer, options.template)
            added = tokenizer.added_tokens_decoder
            after = [i for i in self._encode(self._template.after) if i in added]
            ends = after[0] if after else ends
        elif options.template:
            raise UserError("model.template_options has no say in model.dialect=text: leave it out")
        if ends is None:
            raise UserError("the model's tokenizer has no end-of-sequence token: set one in it")
        self.stop_id: int = ends
        eos = frozenset({tokenizer.eos_token_id} - {None})
        self.stop_ids = frozenset({self.stop_id}) | eos | options.stop_ids
        self._start = [tokenizer.bos_token_id] if puts_bos(tokenizer) else []
        self._is_bent = self._encode(" (A)") != self._after(":", " (A)") or (
            self._encode("heron") != self._after("\n", "heron")
        )

    @property
    def probe(self) -> str:
        """How a short dialogue is written, whatever the settings it comes from."""
        return self._template.probe if self._template else TEXT_BEFORE

    @property
    def template_options(self) -> Mapping[str, Any]:
        """Variables that the chat template is given."""
        return self._template.options if self._template else {}

    @property
    def dates(self) -> Mapping[str, str]:
        """The day that the chat template is told, in each form that it may ask for."""
        return self._template.dates if self._template else {}

    @property
    def lead(self) -> str:
        """What the template puts between a prompt and the assistant's first word."""
        return self._template.lead if self._template else ""

    def prompt(
        self, conversation: Conversation, opening: str = "", speaker: Role = Role.ASSISTANT
    ) -> list[int]:
        """Encode a conversation and how its next turn begins.

        Args:
            conversation: What has been said.
            opening: The beginning of the next turn, if it is given.
            speaker: Whose turn it is; a chat template knows only the assistant's as open.

        Raises:
            UserError: If it is longer than the model's context.
        """
        ids = self.unbounded_prompt(conversation, opening, speaker)
        if len(ids) >= self.context:
            start = conversation[0].text[:60]
            raise UserError(
                f"the conversation that starts {start!r} has {len(ids)} tokens, and model.context "
                f"is {self.context}: shorten it or raise model.context"
            )
        whole = not opening and speaker is Role.ASSISTANT
        return PromptIds(ids, conversation) if whole else ids

    def unbounded_prompt(
        self, conversation: Conversation, opening: str = "", speaker: Role = Role.ASSISTANT
    ) -> list[int]:
        """Do what ``prompt`` does for a conversation of any length."""
        clean = tuple(self._clean(turn) for turn in conversation)
        opening = self._harmless(opening)
        if self._template is None:
            text = to_text(clean).lstrip("\n") + f"\n\n{speaker.name.capitalize()}:"
            return [*self._start, *self._encode(text + (f" {opening}" if opening else ""))]
        text = self._template.render(to_messages(clean))
        return self._encode(text + (self._template.lead + opening if opening else ""))

    def length(self, conversation: Conversation) -> int:
        """Count the tokens of a prompt; one that comes again is not encoded again."""
        if conversation not in self._lengths:
            self._lengths[conversation] = len(self.unbounded_prompt(conversation))
        return self._lengths[conversation]

    def response(self, text: str) -> list[int]:
        """Encode what the assistant says, the end of its turn included."""
        return [*self.continuation(text), self.stop_id]

    def continuation(self, text: str) -> list[int]:
        """Encode a text that continues the assistant's turn."""
        clean = self._harmless(self._spoken_text(text))
        if self._template is None:
            return self._running(TEXT_BEFORE, " " + clean.lstrip(" "))
        return self._running(self._template.before, self._template.lead + clean)

    def options(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode answer strings exactly as they stand in a text, leading blank included."""
        return [self._running(":", text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """Decode a response; what ends it, other controls and thinking are left out."""
        said = [i for i in ids if i not in self.stop_ids]
        text = self.tokenizer.decode(
            said, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return self._spoken_text(str(text)).strip()

    def closed(self, ids: Sequence[int]) -> list[int]:
        """Return a sampled response as one in the data: without thinking, its turn ended."""
        said = list(ids[:-1]) if ids and ids[-1] in self.stop_ids else list(ids)
        ends = self._thoughts_in(said)
        if ends:
            places = range(len(said) + 1)
            said = said[bisect_left(places, ends, key=lambda n: self._thoughts_in(said[:n])) :]
            while said and not str(self.tokenizer.decode(said[:1])).strip():
                said = said[1:]
        return [*said, self.stop_id]

    def _clean(self, turn: Turn) -> Turn:
        said = self._spoken_text(turn.text) if turn.role is Role.ASSISTANT else turn.text
        return turn._replace(text=self._harmless(said or turn.text))

    @property
    def _thinks(self) -> bool:
        return self._template is not None and self._template.thinks

    def _thoughts_in(self, ids: Sequence[int]) -> int:
        """Count the ends of thinking, one token each or spelt out, of a model that knows them."""
        return str(self.tokenizer.decode(list(ids))).count(THINKING_ENDS) if self._thinks else 0

    def _spoken_text(self, text: str) -> str:
        """Leave out closed blocks of thinking, of a model that knows them."""
        thought = self._thinks and THINKING_ENDS in text
        return text.rpartition(THINKING_ENDS)[2].lstrip() if thought else text

    def _encode(self, text: str) -> list[int]:
        return encode(self.tokenizer, text)

    def _running(self, before: str, text: str) -> list[int]:
        """Encode a text as it is encoded behind another one.

        Some tokenizers put a blank before whatever they are given; only there does it matter.
        """
        if self._is_bent:
            for anchor in (before, *ANCHORS):
                ids = self._after(anchor, text)
                if ids is not None:
                    return ids
        return self._encode(text)

    def _after(self, anchor: str, text: str) -> list[int] | None:
        """Return the ids of a text behind an anchor; None if the two melt into one token."""
        before, whole = self._encode(anchor), self._encode(anchor + text)
        return whole[len(before) :] if whole[: len(before)] == before else None

    def _harmless(self, text: str) -> str:
        """Break up strings that the tokenizer would read as control tokens."""
        if any(initial in text for initial in self._initials):
            for control in self._controls:
                text = text.replace(control, control[0] + " " + control[1:])
        return text


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return a text's ids, without what a tokenizer would put around it.

    Raises:
        UserError: If the tokenizer can't: a pattern that explodes, a part that is missing.
    """
    try:
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    except BaseException as error:  # the library raises nothing narrower
        if is_out_of_memory(error) or not (isinstance(error, Exception) or has_panicked(error)):
            raise
        raise UserError(
            f"the model's tokenizer fails on a text ({one_line(str(error))}): use another model"
        ) from error
    return ids


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """List the strings that a tokenizer reads as one token each, longest first.

    That is every added token, whether or not it is flagged as special, except white space and
    single letters, which no turn is marked by.
    """
    added = [str(token.content) for token in tokenizer.added_tokens_decoder.values()]
    names = {str(name) for name in (*tokenizer.all_special_tokens, *added)}
    marks = [name for name in names if len(name) > 1 and name.replace("\u2581", " ").strip()]
    return sorted(marks, key=lambda name: (-len(name), name))


def puts_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tell whether a tokenizer begins every text with a token of its own."""
    ids = tokenizer("heron")["input_ids"]
    return tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]
