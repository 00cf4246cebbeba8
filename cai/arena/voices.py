"""Systems of finished runs, loaded to be talked to."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cai.arena.runs import Run
from cai.arena.talk import Voice
from cai.arena.weights import weights_of
from cai.composition import CONF
from cai.config import HardwareConfig, ModelConfig, ModelSource
from cai.dialogue import Conversation
from cai.errors import UserError
from cai.files import digest_of_folder
from cai.lm.generate import Sampling, stream
from cai.lm.language_model import LanguageModel, is_tuned
from cai.lm.load import load_model
from cai.pipeline.stage import RECORD


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
    settings = [_settings(run) for run in {run.name: run for run, _ in wanted}.values()]
    if any(other["model"] != settings[0]["model"] for other in settings):
        raise UserError(
            "these runs stand on different base models: talk to the systems of one run at a time"
        )
    model = load_model(_base(settings[0], wanted[0][0]), _hardware(manner.hardware))
    adapters: dict[Path | None, str | None] = {None: None}
    for folder in found.values():
        if folder not in adapters:
            adapters[folder] = f"voice_{len(adapters)}"
            model.add_adapter(f"voice_{len(adapters) - 1}", 0, folder)
    spoke = settings[0]["evaluate"]
    sampling = Sampling(
        manner.tokens or spoke["reply_tokens"],
        1,
        spoke["temperature"] if manner.temperature is None else manner.temperature,
    )
    return Voices(model, {voice: adapters[folder] for voice, folder in found.items()}, sampling)


def _settings(run: Run) -> dict[str, Any]:
    """Read what an evaluation was made with.

    Raises:
        UserError: If it has no record.
    """
    try:
        recipe: dict[str, Any] = run.evaluation.record()["recipe"]
    except (OSError, ValueError, KeyError) as error:
        path = run.evaluation.path / RECORD
        raise UserError(f"{path} can't be read: run stage=evaluate again") from error
    return {**recipe["settings"], "content": recipe.get("content", {})}


def _base(settings: dict[str, Any], run: Run) -> ModelConfig:
    """Describe the base of a run.

    Raises:
        UserError: If this version can't read what it was, or it has changed since.
    """
    try:
        config: Any = OmegaConf.to_object(
            OmegaConf.merge(OmegaConf.structured(ModelConfig), settings["model"])
        )
    except OmegaConfBaseException as error:
        raise UserError(
            f"{run.name} describes its base model in a way that this version can't read "
            f"({str(error).splitlines()[0]}): run stage=evaluate again"
        ) from error
    if config.source is ModelSource.folder:
        digest = digest_of_folder(Path(config.path), "model.path")
        if digest != settings["content"].get("model.path"):
            raise UserError(f"the base model in {config.path} has changed since {run.name}")
    described: ModelConfig = config
    return described


def _hardware(name: str) -> HardwareConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        node = compose(overrides=[f"+hardware={name}"]).hardware
    found: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(HardwareConfig), node))
    hardware: HardwareConfig = found
    return hardware
