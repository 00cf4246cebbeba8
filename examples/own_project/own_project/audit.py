"""A stage of our own: how much of the revisions points the person to somebody who can help?

One module (this one), one schema (``AuditConfig``), one config file (``conf/stage/audit.yaml``) and
one line (the entry point in ``pyproject.toml``).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cai.config import Config
from cai.contracts.assistants import Revisions
from cai.jsonl import Document, Rows
from cai.pipeline.stage import Job, Result, Stage, Work


@dataclass
class AuditConfig:
    """The stage's node of the config; its values are in conf/stage/audit.yaml."""

    words: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Settings:
    """What the stage is hashed on."""

    audit: AuditConfig


@dataclass(frozen=True)
class Inputs:
    """Results that the stage reads."""

    revise: Revisions


@dataclass(frozen=True)
class Finding:
    """A last revision and the words of ours that are in it."""

    prompt_id: str
    revision: str
    words: list[str]


@dataclass(frozen=True)
class Share:
    """How many revisions have at least one of the words."""

    share: float
    n: int


class Audit(Result):
    """What the stage writes."""

    @property
    def findings(self) -> Rows[Finding]:
        """A row per prompt."""
        return Rows(self.path / "findings.jsonl", Finding)

    @property
    def share(self) -> Document[Share]:
        """All of them in one number."""
        return Document(self.path / "share.json", Share)


def run(settings: Settings, inputs: Inputs, out: Audit, job: Job) -> None:
    """Look for the words in the last revision of every prompt."""
    findings = []
    for row in inputs.revise.rows.read():
        text = row.after(len(row.rounds))
        found = [word for word in settings.audit.words if word in text.lower()]
        findings.append(Finding(row.prompt_id, text, found))
    share = sum(bool(finding.words) for finding in findings) / max(1, len(findings))
    out.findings.write(findings)
    out.share.write(Share(share, len(findings)))
    job.tracker.metrics({"share": share}, 0)


def cost(config: Config) -> Work:
    """Count what the stage does: it reads texts, and asks no model."""
    return Work(prompts=0)


STAGE = Stage(name="audit", settings=Settings, inputs=Inputs, result=Audit, run=run, cost=cost)
