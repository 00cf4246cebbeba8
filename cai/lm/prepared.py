"""Adapters that ship with the package, each for one base, one recipe and one set of data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from cai.files import read_json, replacing, sha256_of, write_text
from cai.lm.language_model import ADAPTER_FILE, LanguageModel

RECORD = "prepared.json"
"""What the adapter was made for, beside its weights and their checksum."""

Made = Mapping[str, Any]
"""Everything that decides what an adapter should be, as JSON types."""


def ship(model: LanguageModel, name: str, made: Made, folder: Path) -> None:
    """Write an adapter in half precision with the record of what it was made for."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    state = {key: value.to(torch.bfloat16) for key, value in model.adapter_state(name).items()}
    with replacing(folder / ADAPTER_FILE) as scratch:
        save_file(state, scratch, metadata={"format": "pt"})
    record = {"sha256": sha256_of(folder / ADAPTER_FILE), **made}
    write_text(folder / RECORD, json.dumps(record, indent=2) + "\n")


def misfit(made: Made, folder: Path) -> str | None:
    """Say in which way the adapter in a folder is not the one that is wanted; None if it is."""
    if not (folder / RECORD).is_file():
        return "there is none"
    record = read_json(folder / RECORD)
    if record.pop("sha256") != sha256_of(folder / ADAPTER_FILE):
        return "the file is damaged"
    other = sorted(key for key in {*record, *made} if record.get(key) != made.get(key))
    return f"the {other[0]} is another" if other else None
