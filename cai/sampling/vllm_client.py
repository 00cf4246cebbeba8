"""Requests to a vLLM server, each failure one sentence."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from cai.errors import UserError
from cai.terminal import one_line

LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
"""Answered with a plain text."""
PLAIN = {
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""Nothing but the temperature shapes the distribution, whatever the server's defaults are."""
Next = tuple[Sequence[int], Collection[int]]
"""A prompt, and tokens that may come next."""

LARGEST = 256 << 20
"""Bytes of an answer; a longer one does not end."""
RUNTIME = "VLLM_ALLOW_RUNTIME_LORA_UPDATING"


class Refused(UserError):
    """The server does not do what is asked."""


class VLLMClient:
    """One server.

    Attributes:
        url: Where it is.
        base: What it calls its base model.
        context: The tokens that it takes.
        version: Of vLLM.
    """

    def __init__(self, url: str, requests: int, timeout: float) -> None:
        """Connect.

        Raises:
            UserError: If the server does not answer, or is none of vLLM's.
        """
        self.url = url.rstrip("/").removesuffix("/v1")
        self._requests, self._timeout = requests, timeout
        self._http = httpx.Client(
            base_url=self.url,
            timeout=timeout,
            trust_env=False,  # no proxy stands between a trainer and its sampler
            limits=httpx.Limits(max_connections=requests),
        )
        try:
            models = self._call("GET", "/v1/models")["data"]
            base = next(model for model in models if not model.get("parent"))
            self.base, self.context = str(base["id"]), int(base["max_model_len"])
            self.version = str(self._call("GET", "/version")["version"])
        except (Refused, KeyError, StopIteration, TypeError) as error:
            raise UserError(_other(self.url)) from error

    def complete(self, asked: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Send requests side by side; return the one choice of each, with its token ids.

        Raises:
            Refused: If the server does not answer one of them.
        """
        bodies = [{**body, "return_token_ids": True} for body in asked]
        with ThreadPoolExecutor(self._requests) as pool:
            replies = pool.map(lambda body: self._call("POST", "/v1/completions", body), bodies)
            try:
                return [reply["choices"][0] for reply in replies]
            except Refused as error:
                raise Refused(
                    f"the vLLM server at {self.url} does not answer a prompt ({error}): see its "
                    "own log, start it again, and run the same command"
                ) from error
            except (KeyError, IndexError, TypeError) as error:
                raise UserError(_other(self.url)) from error

    def following(self, model: str, asked: Sequence[Next]) -> list[dict[int, float]]:
        """Return the log-probabilities of tokens that may come next.

        The server has a way to read those of a prompt, which fails with adapters (vLLM 0.32).
        """
        bodies = [
            {
                **PLAIN,
                "model": model,
                "prompt": list(prompt),
                "max_tokens": 1,
                "temperature": 1.0,
                "logprobs": len(tokens),
                "logprob_token_ids": sorted(tokens),
                "return_tokens_as_token_ids": True,
            }
            for prompt, tokens in asked
        ]
        found = [choice["logprobs"]["top_logprobs"][0] for choice in self.complete(bodies)]
        return [
            {token: float(listed[f"token_id:{token}"]) for token in tokens}
            for listed, (_, tokens) in zip(found, asked, strict=True)
        ]

    def load_adapter(self, name: str, folder: Path) -> None:
        """Load a saved adapter.

        Raises:
            UserError: If the server does not load adapters while it runs, or not this one.
        """
        body = {"lora_name": name, "lora_path": str(folder.resolve())}
        try:
            self._call("POST", LOAD, body)
        except Refused as error:
            if str(error) == "Not Found":  # the address itself
                raise UserError(
                    f"the vLLM server at {self.url} loads no adapters while it runs: start it with "
                    f"--enable-lora and {RUNTIME}=1 in its environment"
                ) from error
            raise UserError(
                f"the vLLM server at {self.url} does not load an adapter ({error}): start it with "
                "--enable-lora and --max-lora-rank of at least model.lora.rank, and let "
                "sampler.adapters be a folder that it sees"
            ) from error

    def unload_adapter(self, name: str) -> None:
        """Let the server forget an adapter."""
        self._call("POST", UNLOAD, {"lora_name": name})

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Make a request.

        Raises:
            Refused: With what the server says.
            UserError: If it does not answer.
        """
        try:
            with self._http.stream(method, path, json=body) as response:
                said = self._read(response)
        except httpx.TimeoutException as error:
            raise UserError(
                f"the vLLM server at {self.url} gave no answer in time: raise sampler.timeout, or "
                "lower sampler.requests"
            ) from error
        except httpx.HTTPError as error:
            raise UserError(
                f"no vLLM server answers at {self.url} ({error}): start one there with vllm serve, "
                "or give sampler.python to have one started"
            ) from error
        if not response.is_success:
            raise Refused(_reason(response, said))
        try:
            return json.loads(said) if path != LOAD and path != UNLOAD else None
        except (ValueError, RecursionError) as error:
            raise UserError(_other(self.url)) from error

    def _read(self, response: httpx.Response) -> bytes:
        """Read an answer; the timeout of the library is only that between two parts of it."""
        until, said = time.monotonic() + self._timeout, bytearray()
        for part in response.iter_bytes():
            said += part
            if time.monotonic() > until or len(said) > LARGEST:
                raise httpx.ReadTimeout("the answer does not end")
        return bytes(said)


def _other(url: str) -> str:
    return f"what answers at sampler.url={url} is no vLLM server: start one with vllm serve"


def _reason(response: httpx.Response, said: bytes) -> str:
    """Find the sentence in a refusal."""
    try:
        body = json.loads(said)
        error = body.get("error", body)
        return one_line(str(error.get("message") or error.get("detail") or error)).rstrip(".")
    except (ValueError, AttributeError, RecursionError):
        return f"{response.status_code} {response.reason_phrase}"
