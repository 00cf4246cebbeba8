"""A vLLM server as the sampler: ids in, ids and log-probabilities out, adapters as they change."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import uuid
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cai.config import SamplerConfig
from cai.dialogue import human
from cai.errors import UserError
from cai.lm.generate import Completion, Sampling
from cai.lm.heads import save_model
from cai.lm.language_model import LanguageModel
from cai.lm.packing import Tree
from cai.lm.score import Shaping, token_logprobs
from cai.sampling.vllm_client import PLAIN, Refused, VLLMClient

ASKED = "Name three birds that live by the water, and say what each of them eats."
"""What is read here and there, to see whether both have the same model."""
READ = 12
"""Tokens of it, from its end."""
TOLERANCE = 0.2
"""Nats per token that rounding to bf16 may make on average; another model differs by more."""
HOT = 2.0
"""A temperature that tells whose distribution log-probabilities are of."""
SEEDS = 2**31
"""The server's seeds are smaller than ours."""


class VLLMSampler:
    """Hands the adapters of a model to a server that has the same base, and samples there.

    Adapters are saved and loaded anew, under a name of their own, when their weights have changed.
    """

    def __init__(self, model: LanguageModel, config: SamplerConfig, client: VLLMClient) -> None:
        """Check that the server has the base of the model.

        Raises:
            UserError: If it does not answer or has another one.
        """
        self._model = weakref.ref(model)  # which holds its sampler
        self._client = client
        self._folder = Path(tempfile.mkdtemp(prefix="cai-adapters-", dir=config.adapters))
        self._session = uuid.uuid4().hex[:6]
        self._versions = 0
        self._loaded: dict[str, tuple[str, str]] = {}
        weakref.finalize(self, _leave, client, self._loaded, self._folder)
        _check_base(model, client)
        _check_temperature(model, self, client.url)

    def generate(
        self,
        adapter: str | None,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        sampling: Sampling,
    ) -> list[Completion]:
        """Sample one response per prompt; what a seed gives is the server's."""
        model = self._voices()
        stops = sorted(model.stop_ids)
        common = {
            **PLAIN,
            "model": self._name(adapter),
            "max_tokens": sampling.max_new_tokens,
            "min_tokens": sampling.min_new_tokens,
            "temperature": sampling.temperature,
            "stop_token_ids": stops,
            "logprobs": 0,
        }
        asked = [
            {**common, "prompt": list(prompt), "seed": seed % SEEDS}
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        return [_completion(choice, model.stop_ids) for choice in self._client.complete(asked)]

    def option_logprobs(
        self,
        adapter: str | None,
        prompts: Sequence[Sequence[int]],
        options: Sequence[Sequence[int]],
    ) -> Tensor:
        """Read the options token by token; what they share is read once."""
        ways: dict[tuple[int, ...], set[int]] = {}
        for option in options:
            for n, token in enumerate(option):
                ways.setdefault(tuple(option[:n]), set()).add(token)
        asked = [([*prompt, *way], ways[way]) for prompt in prompts for way in ways]
        read = iter(self._client.following(self._name(adapter), asked))
        rows = []
        for _ in prompts:
            listed = {way: next(read) for way in ways}
            rows.append([sum(listed[tuple(o[:n])][o[n]] for n in range(len(o))) for o in options])
        return torch.tensor(rows).reshape(len(prompts), len(options))

    def _voices(self) -> LanguageModel:
        model = self._model()
        assert model is not None
        return model

    def _name(self, adapter: str | None) -> str:
        """Return what the server calls an adapter as it is now; loaded there if it is new."""
        if adapter is None:
            return self._client.base
        model = self._voices()
        digest = _digest(model.adapter_state(adapter))
        if adapter in self._loaded and self._loaded[adapter][1] == digest:
            return self._loaded[adapter][0]
        self._versions += 1
        name = f"{adapter}-{self._session}-{self._versions}"
        save_model(model, adapter, self._folder / name)
        self._client.load_adapter(name, self._folder / name)
        if adapter in self._loaded:
            old, _ = self._loaded[adapter]
            self._client.unload_adapter(old)
            shutil.rmtree(self._folder / old)
        self._loaded[adapter] = (name, digest)
        return name


def _digest(state: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode())
        digest.update(state[key].float().numpy().tobytes())
    return digest.hexdigest()


def _completion(choice: dict[str, Any], stops: frozenset[int]) -> Completion:
    tokens = choice["token_ids"]
    return Completion(tokens, choice["logprobs"]["token_logprobs"], tokens[-1] in stops)


def _check_base(model: LanguageModel, client: VLLMClient) -> None:
    """Compare what both read of one prompt."""
    context = model.chat.context
    if client.context < context:
        raise UserError(
            f"the vLLM server at {client.url} takes {client.context} tokens and model.context is "
            f"{context}: start it with --max-model-len={context}, or lower model.context"
        )
    ids = model.chat.prompt((human(ASKED),))
    with model.use(None) as network:
        [[ours]] = token_logprobs(network, [Tree(ids[:-READ], [ids[-READ:]])], model.read_tokens)
    places = range(len(ids) - READ, len(ids))
    try:
        read = client.following(client.base, [(ids[:n], [ids[n]]) for n in places])
        theirs = torch.tensor([value for found in read for value in found.values()])
        gap = float((ours.cpu() - theirs).abs().mean())
    except Refused:  # ids that it does not know
        gap = float("inf")
    if not gap <= TOLERANCE:
        raise UserError(
            f"the vLLM server at {client.url} serves another model than "
            f"model={model.config.name} (log-probabilities differ by {gap:.2g} nats a token): "
            "start it with the same weights"
        )


def _check_temperature(model: LanguageModel, sampler: VLLMSampler, url: str) -> None:
    """See that log-probabilities are those of the distribution that is drawn from."""
    ids = model.chat.prompt((human(ASKED),))
    [said] = sampler.generate(None, [ids], [0], Sampling(READ, READ, HOT))
    trees = [Tree(ids, [said.tokens])]
    gaps = []
    with model.use(None) as network:
        for temperature in (HOT, 1.0):
            shaping = Shaping(model.stop_ids, READ, temperature)
            [[ours]] = token_logprobs(network, trees, model.read_tokens, shaping=shaping)
            gaps.append(float((ours.cpu() - torch.tensor(said.logprobs)).abs().mean()))
    if gaps[0] > TOLERANCE and gaps[1] < gaps[0]:
        raise UserError(
            f"the vLLM server at {url} gives log-probabilities of temperature 1: start it "
            "with --logprobs-mode=processed_logprobs"
        )


def _leave(client: VLLMClient, loaded: dict[str, tuple[str, str]], folder: Path) -> None:
    """Leave a server as it was found, as far as it still answers."""
    for name, _ in loaded.values():
        try:
            client.unload_adapter(name)
        except UserError:
            break
    shutil.rmtree(folder, ignore_errors=True)
