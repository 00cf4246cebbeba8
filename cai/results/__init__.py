"""The rows and documents that stages write, and that later stages and the report read.

Its modules are loaded when they are first asked for, so that contracts, which only name them, can
be read without them and without the library that checks them.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cai.results import common, judge, labels, reliability, revisions, systems

__all__ = ["common", "judge", "labels", "reliability", "revisions", "systems"]


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
