"""The table of docs/models.md, from what pytest has found.

    python -m pytest tests/lm/test_families.py tests/lm/test_families_tour.py --every-stage \\
        --junitxml=FILE
    python tests/lm/matrix.py FILE
"""

import re
import sys
from collections import defaultdict
from xml.etree import ElementTree

COLUMNS = {
    "ids": "test_ids_are_those_of_the_templates_rendering",
    "packed rows": "test_packed_rows_equal_separate_ones",
    "sampler": "test_the_sampler_agrees_with_the_forward_pass",
    "greedy": "test_greedy_replies_equal_generates",
    "adapters": "test_adapters_reach_nearly_all_and_load_in_peft",
    "PM elsewhere": "test_a_preference_model_scores_in_plain_transformers_as_its_card_says",
    "all stages": "test_a_family_goes_through_every_stage",
}
BAD = {"failure", "error"}


def outcome(case):
    """What a test came to, in its own words if it has some."""
    kinds = {part.tag for part in case}
    if kinds & BAD:
        return "FAILED"
    if "skipped" in kinds:
        return "not run"
    shown = [part.get("value") for part in case.iter("property") if part.get("name") == "shown"]
    return str(shown[0]) if shown else "yes"


def table(files):
    """Put families into rows and tests into columns; the worst of several cases counts."""
    found = defaultdict(dict)
    names = {test: column for column, test in COLUMNS.items()}
    order = ["yes", "not run", "FAILED"]
    for file in files:
        for case in ElementTree.parse(file).iter("testcase"):
            named = re.fullmatch(r"(\w+)\[(.+?)(?:-talk\d+)?\]", case.get("name"))
            if named and named[1] in names:
                row, column = found[named[2]], names[named[1]]
                seen = {row.get(column, "yes"), outcome(case)}
                row[column] = max(seen, key=lambda o: order.index(o) if o in order else 0.5)
    head = ["family", *COLUMNS]
    lines = [head, ["---"] * len(head)]
    lines += [[name, *(row.get(c, "not run") for c in COLUMNS)] for name, row in found.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.stdout.write(table(sys.argv[1:]) + "\n")
