"""Weights that ship with the package: each for one base, one recipe and one set of data.

What is made for exactly that need not be made again; for anything else it is made afresh.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.tensor import DTensor

from cai.files import read_json, replacing, sha256_of, write_text
from cai.lm.language_model import ADAPTER_FILE, LanguageModel

log = logging.getLogger(__name__)

DAMAGED = "the file is damaged"
RECORD = "prepared.json"
"""What the weights were made for, beside them and their checksum."""

Made = Mapping[str, Any]
"""Everything that decides what the weights should be, as JSON types."""


def ship(state: Mapping[str, Tensor], made: Made, folder: Path, file: str = ADAPTER_FILE) -> None:
    """Write weights with the record of what they were made for."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with replacing(folder / file) as scratch:
        save_file(dict(state), scratch, metadata={"format": "pt"})
    record = {"sha256": sha256_of(folder / file), **made}
    write_text(folder / RECORD, json.dumps(record, indent=2) + "\n")


def misfit(made: Made, folder: Path, file: str = ADAPTER_FILE) -> str | None:
    """Say in which way the weights in a folder are not those that are wanted; None if they are."""
    if not ((folder / RECORD).is_file() and (folder / file).is_file()):
        return "there is none"
    record = read_json(folder / RECORD)
    if record.pop("sha256") != sha256_of(folder / file):
        return DAMAGED
    other = sorted(key for key in {*record, *made} if record.get(key) != made.get(key))
    return f"the {other[0]} is another" if other else None


def taken(model: LanguageModel, made: Made, folder: Path, file: str) -> dict[str, Tensor] | None:
    """Return the weights in a folder, if they are those that are wanted for this base.

    Args:
        model: Its base is read last, and only if all else is the same: it takes a while.
        made: What decides what the weights should be, besides the base.
        folder: What ships.
        file: The weights in it.
    """
    record = read_json(folder / RECORD) if (folder / RECORD).is_file() else {}
    reason = misfit({**made, "base": record.get("base")}, folder, file)
    if reason == DAMAGED:
        log.warning("%s is damaged: what it holds is made afresh; install again", folder / file)
    if reason or base_fingerprint(model) != record["base"]:
        return None
    return load_file(folder / file)


def base_fingerprint(model: LanguageModel) -> str:
    """Return the sha256 of the base's weights in bfloat16, adapters left aside."""
    named = {key.replace(".base_layer", ""): p for key, p in model.network.named_parameters()}
    return weights_fingerprint({key: named[key] for key in named if "lora_" not in key})


def adapter_fingerprint(model: LanguageModel, name: str | None) -> str | None:
    """Return the sha256 of an adapter's weights in bfloat16; None where there is none."""
    return None if name is None else weights_fingerprint(model.adapter_state(name))


def digest_of(rows: Iterable[object]) -> str:
    """Return the sha256 of rows of JSON types, one a line."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def weights_fingerprint(state: Mapping[str, Tensor]) -> str:
    """Return the sha256 of weights in bfloat16."""
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode())
        weight = state[key].detach()
        if isinstance(weight, DTensor):  # of a sharded base: all processes take part
            weight = weight.full_tensor()
        low = weight.to(torch.bfloat16).cpu().contiguous().reshape(-1)
        digest.update(low.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
