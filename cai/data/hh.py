"""Anthropic/hh-rlhf: pairs of conversations that share everything but their last reply."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cai.config import DataConfig
from cai.config.content import located
from cai.data.forms import Forms
from cai.data.hub import HubSet
from cai.data.records import Comparison
from cai.data.rows import read_rows, some
from cai.data.source import Source
from cai.errors import UserError

HUB = "Anthropic/hh-rlhf"
READ = ("chosen", "rejected")


def read_hh_rlhf(config: DataConfig, subset: str) -> list[Comparison]:
    """Read one subset from ``data.folder``, or from the hub at ``data.revision``.

    Raises:
        UserError: If there are no rows, or one can't be used and ``data.bad_rows=strict``.
    """
    source = "harmless" if subset.startswith("harmless") else "helpful"
    comparisons: list[Comparison] = []
    for place in _places(config, subset):
        forms = Forms(kind=subset, source=source)
        comparisons += some(place, read_rows(place, forms.comparison, config.bad_rows))
    return comparisons


def _places(config: DataConfig, subset: str) -> Iterator[Source]:
    if not config.folder:
        hub = HubSet(HUB, config.revision, "train+test", {"data_dir": subset})
        yield Source("data.revision", None, hub, wanted=READ)
        return
    folder: Path = located(config.folder) / subset
    files = sorted(p for p in folder.glob("*.jsonl*") if p.suffix in {".jsonl", ".gz"})
    if not files:
        raise UserError(
            f"data.folder={config.folder} has no {subset}/*.jsonl or *.jsonl.gz: give a folder of "
            "the published form"
        )
    yield from (Source("data.folder", path, wanted=READ) for path in files)
