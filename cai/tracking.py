"""metrics.jsonl always; Weights & Biases as a mirror that may fail without stopping a run."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cai.artifacts import Artifact
from cai.config import TrackingConfig

log = logging.getLogger(__name__)


class Tracker:
    """Records one stage run."""

    def __init__(self, stage: str, folder: Path) -> None:
        """Append to ``folder/metrics.jsonl``."""
        self.stage = stage
        self._path = folder / "metrics.jsonl"

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record numbers of one step; the stage's name is put before each."""
        row = {
            "stage": self.stage,
            "step": step,
            **{f"{self.stage}/{k}": v for k, v in values.items()},
        }
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def table(self, name: str, rows: Sequence[Mapping[str, Any]], step: int = 0) -> None:
        """Record rows of text and numbers, such as transcripts."""

    def artifact(self, artifact: Artifact, inputs: Sequence[Artifact]) -> None:
        """Record a finished result and what it was made from."""


@contextmanager
def track(
    config: TrackingConfig, stage: str, folder: Path, recipe: Mapping[str, Any]
) -> Iterator[Tracker]:
    """Open the records of one stage run."""
    folder.mkdir(parents=True, exist_ok=True)
    yield Tracker(stage, folder)
