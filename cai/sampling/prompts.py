"""Prompts that become token ids when they are drawn, and not before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from cai.data.records import Prompt
from cai.lm.chat import ChatFormat


class EncodedPrompts(Sequence[list[int]]):
    """The ids of prompts; a corpus of any size costs only what is read of it."""

    def __init__(self, chat: ChatFormat, prompts: Sequence[Prompt]) -> None:
        """Take prompts that fit the context."""
        self._chat, self._prompts = chat, prompts

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._prompts)

    @overload
    def __getitem__(self, index: int) -> list[int]: ...

    @overload
    def __getitem__(self, index: slice) -> list[list[int]]: ...

    def __getitem__(self, index: int | slice) -> list[int] | list[list[int]]:
        """Encode one, or several."""
        if isinstance(index, slice):
            return [self._chat.prompt(prompt.conversation) for prompt in self._prompts[index]]
        return self._chat.prompt(self._prompts[index].conversation)
