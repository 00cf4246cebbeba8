"""No result is sealed that holds a number which is none."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cai.errors import UserError

_SUSPECT = re.compile(rb"NaN|Infinity|[0-9][eE]\+?[0-9]{3}")
"""What a number that is not finite looks like in JSON; words of a text may look so, too."""


def check_finite(folder: Path) -> None:
    """Look through the rows, documents and weights of a result.

    Raises:
        UserError: Names the file, and the place in it.
    """
    for path in sorted(folder.rglob("*")):
        check = {".json": _in_json, ".jsonl": _in_json, ".safetensors": _in_weights}.get(
            path.suffix
        )
        if check and path.is_file() and (where := check(path)):
            raise UserError(
                f"{path.relative_to(folder)} of this stage has a number that is not finite "
                f"({where}): nothing was made of it; lower the stage's learning rate, or look at "
                "the data that it is made from"
            )


def _in_json(path: Path) -> str | None:
    """Return the line of a number that is not finite."""
    text = path.read_bytes()
    if not _SUSPECT.search(text):
        return None
    whole = path.suffix == ".json"
    for n, line in enumerate([text] if whole else text.splitlines(), start=1):
        if _SUSPECT.search(line) and not _is_finite(json.loads(line)):
            return f"line {n}" if not whole else "somewhere in it"
    return None


def _is_finite(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


def _in_weights(path: Path) -> str | None:
    """Return the name of the first tensor with a number that is not finite."""
    import torch  # late, for the plan of a run needs none of it
    from safetensors import safe_open

    with safe_open(path, framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - it is no mapping
            tensor = tensors.get_tensor(name)
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):
                return str(name)
    return None


_CHECKS: dict[str, Callable[[Path], str | None]] = {
    ".json": _in_json,
    ".jsonl": _in_json,
    ".safetensors": _in_weights,
}
