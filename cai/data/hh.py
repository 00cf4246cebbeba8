"""Anthropic/hh-rlhf: pairs of conversations that share everything but their last reply."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cai.config import DataConfig
from cai.data.records import Comparison, Prompt
from cai.data.rows import numbered_rows
from cai.dialogue import Role, check_prompt, from_text
from cai.errors import UserError

log = logging.getLogger(__name__)

HUB = "Anthropic/hh-rlhf"


def read_hh_rlhf(config: DataConfig, subset: str) -> list[Comparison]:
    """Read one subset from ``data.folder``, or from the hub at ``data.revision``.

    Rows that are not two dialogues with a common prompt are left out, counted and named.
    """
    if config.folder:
        rows: Iterable[tuple[str, dict[str, Any]]] = _from_folder(Path(config.folder), subset)
    else:
        rows = _from_hub(config.revision, subset)
    source = "harmless" if subset.startswith("harmless") else "helpful"
    comparisons, faults = [], Counter[str]()
    first_fault: dict[str, str] = {}
    for where, row in rows:
        try:
            comparisons.append(parse_pair(row, subset, source))
        except (KeyError, ValueError) as error:
            fault = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            faults[fault] += 1
            first_fault.setdefault(fault, where)
    for fault, count in faults.most_common():
        log.warning("%s: %d rows left out, first %s: %s", subset, count, first_fault[fault], fault)
    if not comparisons:
        raise UserError(f"data.folder={config.folder} has no usable rows of {subset}")
    return comparisons


def parse_pair(row: dict[str, Any], kind: str, source: str) -> Comparison:
    """Read one published line, ``{"chosen": text, "rejected": text}``.

    Raises:
        KeyError: If a side is missing.
        ValueError: If a side is not a dialogue that ends with the assistant, or the two differ
            before the last reply.
    """
    chosen, rejected = from_text(row["chosen"]), from_text(row["rejected"])
    if chosen[-1].role is not Role.ASSISTANT or rejected[-1].role is not Role.ASSISTANT:
        raise ValueError("a side does not end with the assistant")
    if chosen[:-1] != rejected[:-1]:
        raise ValueError("the sides differ before the last reply")
    conversation = check_prompt(chosen[:-1])
    digest = hashlib.sha256(repr(conversation).encode()).hexdigest()[:12]
    prompt = Prompt(f"{kind}-{digest}", kind, conversation)
    return Comparison(prompt, chosen[-1].text, rejected[-1].text, 1.0, source)


def _from_folder(folder: Path, subset: str) -> Iterator[tuple[str, dict[str, Any]]]:
    files = sorted(p for p in (folder / subset).glob("*.jsonl*") if p.suffix in {".jsonl", ".gz"})
    if not files:
        raise UserError(f"data.folder={folder} has no {subset}/*.jsonl or *.jsonl.gz: see data/")
    for path in files:
        for number, row in numbered_rows(path):
            yield f"{path}:{number}", row


def _from_hub(revision: str | None, subset: str) -> Iterator[tuple[str, dict[str, Any]]]:
    from datasets import load_dataset

    try:
        rows = load_dataset(HUB, data_dir=subset, revision=revision, split="train+test")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{HUB} at revision {revision} could not be loaded: connect to the hub once, or give "
            "data.folder"
        ) from error
    for number, row in enumerate(rows, start=1):
        yield f"{HUB}/{subset} row {number}", row
