"""From conversations to token ids and back; a text never becomes a control token."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from cai.config import Dialect
from cai.dialogue import Conversation, Role, to_messages, to_text
from cai.errors import UserError


class ChatFormat:
    """How one tokenizer writes a dialogue.

    A prompt is rendered up to the point where the assistant speaks, a response is encoded on its
    own and ends with the stop token, so that ``prompt + response`` is the same list of ids in
    sampling, scoring and training.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, dialect: Dialect, context: int) -> None:
        """Use the tokenizer's own chat template, or the plain text format."""
        if tokenizer.eos_token_id is None:
            raise UserError("the model's tokenizer has no end-of-sequence token: set one in it")
        if dialect is Dialect.chat and not tokenizer.chat_template:
            raise UserError("the model's tokenizer has no chat template: set model.dialect=text")
        self.tokenizer = tokenizer
        self.dialect = dialect
        self.context = context
        self.stop_id: int = tokenizer.eos_token_id
        self._controls = sorted(tokenizer.all_special_tokens, key=len, reverse=True)

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
        clean = tuple(turn._replace(text=self._harmless(turn.text)) for turn in conversation)
        if self.dialect is Dialect.chat:
            text = str(
                self.tokenizer.apply_chat_template(
                    to_messages(clean), tokenize=False, add_generation_prompt=True
                )
            )
        else:
            text = to_text(clean).lstrip("\n") + f"\n\n{speaker.name.capitalize()}:"
            opening = f" {opening}" if opening else ""
        ids = self._encode(text + self._harmless(opening))
        if len(ids) >= self.context:
            start = conversation[0].text[:60]
            raise UserError(
                f"the conversation that starts {start!r} has {len(ids)} tokens, and model.context "
                f"is {self.context}: shorten it or raise model.context"
            )
        return ids

    def response(self, text: str) -> list[int]:
        """Encode what the assistant says, stop token included."""
        return [*self.continuation(text), self.stop_id]

    def continuation(self, text: str) -> list[int]:
        """Encode a text that continues the assistant's turn."""
        clean = self._harmless(text)
        return self._encode(clean if self.dialect is Dialect.chat else " " + clean.lstrip(" "))

    def options(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode answer strings exactly as they stand, leading blank included."""
        return [self._encode(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """Decode a response; the stop token and other controls are left out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _harmless(self, text: str) -> str:
        """Break up strings that the tokenizer would read as control tokens."""
        for control in self._controls:
            text = text.replace(control, control[0] + " " + control[1:])
        return text
