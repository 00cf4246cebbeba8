"""Systems of finished runs, loaded to be talked to."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cai.arena.runs import Run
from cai.arena.talk import Voice
from cai.arena.weights import weights_of
from cai.composition import hardware_node
from cai.config import ModelConfig, ModelSource
from cai.contracts.recorded import recorded_node
from cai.dialogue import Conversation
from cai.errors import UserError
from cai.files import digest_of_folder
from cai.lm.generate import Sampling, stream
from cai.lm.language_model import LanguageModel, is_tuned
from cai.lm.load import load_model


class Voices:
    """Systems on one base, of which one speaks at a time."""

    def __init__(
        self, model: LanguageModel, adapters: dict[Voice, str | None], sampling: Sampling
    ) -> None:
        """Take a base with its adapters.

        Args:
            model: The base.
            adapters: On it, by system; None is the bare base.
            sampling: Length and temperature of replies.
        """
        self._model, self._adapters, self._sampling = model, adapters, sampling
        self._lock = threading.Lock()

    def check(self, conversation: Conversation) -> None:
        """Refuse a conversation to which there is no room for a reply.

        Raises:
            UserError: If it is too long.
        """
        chat, room = self._model.chat, self._sampling.max_new_tokens
        if len(chat.unbounded_prompt(conversation)) + room > chat.context:
            raise UserError(
                "This conversation has reached the length that the model can read: begin a new one."
            )

    def reply(self, voice: Voice, conversation: Conversation, seed: int) -> Iterator[str]:
        """Yield a reply as it grows; others wait until it is taken to its end, or closed.

        Raises:
            UserError: If the conversation is too long.
        """
        self.check(conversation)
        model, ids = self._model, list[int]()
        prompt = model.chat.prompt(conversation)
        with self._lock, model.sampling(self._adapters[voice]) as network:
            for token in stream(network, prompt, seed, self._sampling, model.stop_ids):
                ids.append(token)
                # A letter of several tokens is shown when it is whole.
                yield model.chat.decode(ids).rstrip("\ufffd")
        yield model.chat.decode(ids)


class Manner(NamedTuple):
    """How systems should speak, where not as they did when they were evaluated."""

    hardware: str = "auto"
    temperature: float | None = None
    tokens: int | None = None


def load_voices(wanted: Sequence[tuple[Run, str]], manner: Manner) -> Voices:
    """Load systems of runs that stand on the same base.

    Args:
        wanted: A run and the name of one of its systems, each.
        manner: How they should speak.

    Raises:
        UserError: If one is not there, or the base can't be had or is not the same for all.
    """
    places = {Voice(run.name, name): weights_of(run, name) for run, name in wanted}
    found = {voice: place if is_tuned(place) else None for voice, place in places.items()}
    base, *others = [_base(run) for run in {run.name: run for run, _ in wanted}.values()]
    if any(other != base for other in others):
        raise UserError(
            "these runs stand on different base models: talk to the systems of one run at a time"
        )
    model = load_model(base, hardware_node(manner.hardware))
    adapters: dict[Path | None, str | None] = {None: None}
    for folder in found.values():
        if folder not in adapters:
            adapters[folder] = f"voice_{len(adapters)}"
            model.add_adapter(f"voice_{len(adapters) - 1}", 0, folder)
    spoke = recorded_node(wanted[0][0].evaluation, "evaluate", dict)
    sampling = Sampling(
        manner.tokens or spoke["reply_tokens"],
        1,
        spoke["temperature"] if manner.temperature is None else manner.temperature,
    )
    return Voices(model, {voice: adapters[folder] for voice, folder in found.items()}, sampling)


def _base(run: Run) -> ModelConfig:
    """Describe the base of a run.

    Raises:
        UserError: If it can't be read what it was, or it has changed since.
    """
    base: ModelConfig = recorded_node(run.evaluation, "model", ModelConfig)
    if base.source is ModelSource.folder:
        known = run.evaluation.record()["recipe"].get("content", {})
        if digest_of_folder(Path(base.path), "model.path") != known.get("model.path"):
            raise UserError(f"the base model in {base.path} has changed since {run.name}")
    return base
