"""A vLLM server for the length of a block."""

import os
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import httpx

PATIENCE = 900


@contextmanager
def served(python, folder, *options):
    """Serve a model folder in float32; yield the address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [python, "-m", "vllm.entrypoints.openai.api_server", f"--model={folder}"]
    command += [f"--port={port}", "--host=127.0.0.1", "--dtype=float32", "--max-model-len=512"]
    command += [f"--served-model-name={folder.name}", *options]
    ours = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    environment = {key: value for key, value in os.environ.items() if key not in ours}
    environment["PATH"] = f"{Path(python).parent}{os.pathsep}{environment['PATH']}"
    log = folder.parent / "vllm.log"
    with log.open("wb") as file:
        server = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=environment, cwd=folder.parent
        )
        try:
            _wait(server, f"http://127.0.0.1:{port}", log)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(60)


def _wait(server, url, log):
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        assert server.poll() is None, log.read_text()[-2000:]
        try:
            if httpx.get(f"{url}/health", timeout=5, trust_env=False).is_success:
                return
        except httpx.HTTPError:
            time.sleep(0.5)
    raise AssertionError(log.read_text()[-2000:])
