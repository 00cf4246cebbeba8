"""What can be done to a model's folder."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

PY = "import pathlib; pathlib.Path({canary!r}).touch()\n"
Change = Callable[["Folder"], None]


@dataclass
class Folder:
    """A model's folder in the making, and the file whose existence means that code has run."""

    path: Path
    canary: Path

    def json(self, name: str, **changes: Any) -> None:
        """Change keys of a JSON file."""
        file = self.path / name
        value = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps({**value, **changes}))

    def text(self, name: str, text: str | bytes) -> None:
        """Write a file."""
        data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        (self.path / name).write_bytes(data)

    def gone(self, name: str) -> Path:
        """Delete a file and return its path."""
        file = self.path / name
        file.unlink()
        return file

    def code(self, *names: str) -> None:
        """Lay code beside the model."""
        for name in names:
            self.text(name, PY.format(canary=str(self.canary)) + "class Evil:\n    pass\n")

    def tensors(self, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
        """Change the weights."""
        file = self.path / "model.safetensors"
        found = load_file(file)
        change(found)
        save_file(found, file, {"format": "pt"})

    def template(self, text: str) -> None:
        """Give the tokenizer another chat template."""
        (self.path / "chat_template.jinja").unlink(missing_ok=True)
        self.json("tokenizer_config.json", chat_template=text)


class _Exploit:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.canary}",)


def pickled(name: str, keep: bool = False) -> Change:
    def change(folder: Folder) -> None:
        if not keep:
            folder.gone("model.safetensors")
        folder.text(name, pickle.dumps(_Exploit(folder.canary)))

    return change


def config(**changes: Any) -> Change:
    return lambda folder: folder.json("config.json", **changes)


def file_(name: str, text: str | bytes) -> Change:
    return lambda folder: folder.text(name, text)


def tokenizer(**changes: Any) -> Change:
    return lambda folder: folder.json("tokenizer_config.json", **changes)


def template(text: str) -> Change:
    return lambda folder: folder.template(text)


def auto_map(folder: Folder) -> None:
    folder.code("modeling_evil.py", "configuration_evil.py", "tokenization_evil.py")
    folder.json(
        "config.json",
        model_type="evil",
        auto_map={
            "AutoConfig": "configuration_evil.Evil",
            "AutoModelForCausalLM": "modeling_evil.Evil",
        },
    )


def known_type_with_code(folder: Folder) -> None:
    folder.code("modeling_evil.py", "configuration_evil.py")
    folder.json(
        "config.json",
        trust_remote_code=True,
        auto_map={"AutoModelForCausalLM": "modeling_evil.Evil"},
    )


def tokenizer_code(folder: Folder) -> None:
    folder.code("tokenization_evil.py")
    folder.json(
        "tokenizer_config.json",
        tokenizer_class="Evil",
        auto_map={"AutoTokenizer": ["tokenization_evil.Evil", "tokenization_evil.Evil"]},
    )


def generation_code(folder: Folder) -> None:
    (folder.path / "custom_generate").mkdir()
    folder.code("custom_generate/generate.py")


def link(name: str, target: str) -> Change:
    return lambda folder: folder.gone(name).symlink_to(target)


def pipe(name: str) -> Change:
    return lambda folder: os.mkfifo(folder.gone(name))


def directory(name: str) -> Change:
    return lambda folder: folder.gone(name).mkdir()


def cut(folder: Folder) -> None:
    file = folder.path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def header(text: bytes, size: int | None = None) -> Change:
    whole = struct.pack("<Q", len(text) if size is None else size) + text
    return file_("model.safetensors", whole)


def overlap(folder: Folder) -> None:
    tensor = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    head = json.dumps({"a": tensor, "b": tensor}).encode()
    folder.text("model.safetensors", struct.pack("<Q", len(head)) + head + b"\0" * 16)


def shards(names: dict[str, str]) -> Change:
    def change(folder: Folder) -> None:
        folder.gone("model.safetensors")
        value = {"metadata": {"total_size": 1}, "weight_map": names}
        folder.text("model.safetensors.index.json", json.dumps(value))

    return change


def poison(value: float) -> Change:
    return lambda folder: folder.tensors(lambda t: t["model.norm.weight"].fill_(value))


def drop(folder: Folder) -> None:
    folder.tensors(lambda t: t.pop("model.norm.weight"))


def extra(folder: Folder) -> None:
    folder.tensors(lambda t: t.update(more=torch.ones(1)))


def reshape(folder: Folder) -> None:
    folder.tensors(lambda t: t.update({"model.norm.weight": torch.ones(7)}))


def integers(folder: Folder) -> None:
    folder.tensors(lambda t: t.update({"model.norm.weight": torch.ones(64, dtype=torch.int32)}))


def adapter(folder: Folder) -> None:
    folder.text("adapter_config.json", json.dumps({"base_model_name_or_path": "/etc", "r": 1}))


def edit_tokenizer(edit: Callable[[dict[str, Any]], object]) -> Change:
    def change(folder: Folder) -> None:
        file = folder.path / "tokenizer.json"
        value = json.loads(file.read_text())
        edit(value)
        file.write_text(json.dumps(value))

    return change
