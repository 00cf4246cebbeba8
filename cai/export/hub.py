"""Uploading a folder to a hub; private unless told otherwise, also where there is one already."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from cai.config import ModelSource
from cai.errors import UserError
from cai.export.models import Form
from cai.export.systems import System

FAULTS: tuple[type[Exception], ...] = (HfHubHTTPError.__mro__[1], OSError, ValueError)
"""What an upload fails with; the library's own error is one of those of its HTTP client."""


@dataclass(frozen=True)
class Repository:
    """Where to.

    Attributes:
        name: ``owner/name``.
        kind: ``model`` or ``dataset``.
        public: Whether everybody may see it.
    """

    name: str
    kind: str
    public: bool

    def check(self) -> None:
        """Find out before any work is done whether an upload can be tried.

        Raises:
            UserError: If the name is none, or nobody has logged in.
        """
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", self.name):
            raise UserError(f"--push={self.name} is no repository: write OWNER/NAME")
        if get_token() is None:
            raise UserError(
                "--push needs a token of the hub: run hf auth login, or set HF_TOKEN to one that "
                "may write"
            )


def check_findable(system: System, form: Form) -> None:
    """Refuse an adapter whose base is in no hub.

    Raises:
        UserError: If others could not load it.
    """
    if not form.merged and system.base.source is not ModelSource.hub:
        raise UserError(
            f"--push --adapter would publish an adapter whose base, model={system.base.name}, is "
            "in no hub, so that nobody could load it: use --merged"
        )


def push(folder: Path, repository: Repository) -> str:
    """Upload a folder; return its address.

    Raises:
        UserError: If the hub refuses, or has it with another visibility.
    """
    api = HfApi()
    try:
        _make(api, repository)
        api.upload_folder(
            repo_id=repository.name,
            repo_type=repository.kind,
            folder_path=folder,
            commit_message="Export from a run",
        )
        address = "datasets/" if repository.kind == "dataset" else ""
        return f"{api.endpoint}/{address}{repository.name}"
    except FAULTS as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UserError(
            f"--push={repository.name} failed ({reason}): the export is complete in {folder}, and "
            f"hf upload {repository.name} {folder} sends it later"
        ) from error


def _make(api: HfApi, repository: Repository) -> None:
    """Make a repository; one that is there must be as visible as is wanted."""
    try:
        found = api.repo_info(repository.name, repo_type=repository.kind)
    except RepositoryNotFoundError:
        api.create_repo(repository.name, repo_type=repository.kind, private=not repository.public)
        return
    if bool(found.private) is repository.public:
        is_now, advice = (
            ("private", "leave out --public")
            if found.private
            else ("public", "give another name, or --public")
        )
        raise UserError(f"--push={repository.name} is there already and {is_now}: {advice}")
