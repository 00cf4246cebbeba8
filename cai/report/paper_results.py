"""The paper's own tests, joined over runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cai.results.systems import PaperFile, PaperResult, PaperTests


@dataclass(frozen=True)
class PaperTest:
    """A test and the results of all systems; ``system`` of a result is an id, as it is shown."""

    file: PaperFile
    results: list[PaperResult]


def join_paper_tests(
    read: Sequence[PaperTests], ids: Sequence[Mapping[str, str]], judges: Sequence[str]
) -> list[PaperTest]:
    """Join the tests of several runs; a system that they share appears once.

    Args:
        read: Of each run that took tests.
        ids: Of each, the ids of its systems by name.
        judges: Of each, its preference models.
    """
    tests: dict[str, PaperTest] = {}
    seen: set[tuple[str, str, str]] = set()
    for taken, names, judge in zip(read, ids, judges, strict=True):
        for file in taken.tests:
            tests.setdefault(file.test, PaperTest(file, []))
        for result in taken.results:
            shown = names.get(result.system, result.system)
            if result.mode == "pm" and len(set(judges)) > 1:
                shown = f"{shown} ({judge})"
            key = (result.test, shown, result.mode)
            if key not in seen:
                seen.add(key)
                tests[result.test].results.append(replace(result, system=shown))
    return list(tests.values())
