"""A loaded base, and what is needed to put adapters on it."""

from __future__ import annotations

from dataclasses import dataclass

from peft import PeftModel
from transformers import PreTrainedModel

from cai.lm.adapters import Targets
from cai.lm.chat import ChatFormat


@dataclass
class Base:
    """A loaded base, which one ``LanguageModel`` after another may stand on.

    Attributes:
        network: Its weights, never changed.
        chat: Its tokenizer and format.
        targets: The layers that adapters reach.
        peft: What holds the adapters while there are any.
    """

    network: PreTrainedModel
    chat: ChatFormat
    targets: Targets
    peft: PeftModel | None = None

    def strip(self) -> None:
        """Take all adapters off; the weights are then those that were loaded."""
        if self.peft is not None:
            self.peft.unload()
            self.peft = None
