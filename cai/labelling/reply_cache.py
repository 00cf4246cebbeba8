"""Replies of a server on disk, by the sha256 of their request."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cai.errors import UserError
from cai.files import write_text
from cai.labelling.reply import ServerReply, parse_reply, to_row

LARGEST_FILE = 64 << 20
"""Bytes; a larger file was not written here."""


class ReplyCache:
    """Replies on disk by the sha256 of their request; runs may share the folder."""

    def __init__(self, folder: Path) -> None:
        """Use a folder, made when the first reply is kept."""
        self.folder = folder

    def find(self, request: Mapping[str, Any]) -> ServerReply | None:
        """Return what was kept; whatever else lies in its place counts as nothing."""
        path = self._path(request)
        try:
            if not path.is_file() or path.stat().st_size > LARGEST_FILE:
                return None
            return parse_reply(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError):
            return None

    def keep(self, request: Mapping[str, Any], reply: ServerReply) -> None:
        """Write a reply so that others see all of it or nothing.

        Raises:
            UserError: If the folder can't be written to.
        """
        path = self._path(request)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(to_row(reply)))
        except OSError as error:
            raise UserError(
                f"{self.folder} can't be written to ({error.strerror}): set CAI_CACHE to a folder "
                "that you may write"
            ) from error

    def _path(self, request: Mapping[str, Any]) -> Path:
        text = json.dumps(request, sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()
        return self.folder / key[:2] / f"{key}.json"
