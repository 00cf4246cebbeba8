"""The protocol between methods and what runs a model: ids in, ids and log-probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from torch import Tensor
from transformers import PreTrainedModel

from cai.config import HardwareConfig
from cai.lm.generate import Completion, Sampling, generate
from cai.lm.score import option_logprobs


class Sampler(Protocol):
    """Speaks with the voice of an adapter, or of the bare base (``None``), as it is now."""

    def generate(
        self,
        adapter: str | None,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        sampling: Sampling,
    ) -> list[Completion]:
        """Sample one response per prompt, each from a seed of its own."""
        ...

    def option_logprobs(
        self,
        adapter: str | None,
        prompts: Sequence[Sequence[int]],
        options: Sequence[Sequence[int]],
    ) -> Tensor:
        """Return the log-probability of each whole option after each prompt: [N, K]."""
        ...


class Voices(Protocol):
    """A model whose adapters can be folded in for a while."""

    hardware: HardwareConfig

    @property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end a response."""
        ...

    @property
    def read_tokens(self) -> int:
        """Padded tokens of a forward pass that keeps nothing."""
        ...

    def sampling(self, name: str | None) -> AbstractContextManager[PreTrainedModel]:
        """Activate an adapter for a block in which nothing is trained."""
        ...


class LocalSampler:
    """Samples in this process, ``hardware.sample_rows`` at a time."""

    def __init__(self, model: Voices) -> None:
        """Use a loaded model."""
        self._model = model

    def generate(
        self,
        adapter: str | None,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        sampling: Sampling,
    ) -> list[Completion]:
        """Sample one response per prompt."""
        rows, stops = self._model.hardware.sample_rows, self._model.stop_ids
        with self._model.sampling(adapter) as network:
            return generate(network, prompts, seeds, sampling, stops, batch_size=rows)

    def option_logprobs(
        self,
        adapter: str | None,
        prompts: Sequence[Sequence[int]],
        options: Sequence[Sequence[int]],
    ) -> Tensor:
        """Read the options after each prompt."""
        with self._model.sampling(adapter) as network:
            return option_logprobs(network, prompts, options, self._model.read_tokens)
