"""The short form of ``faults.rows``; the long one is a command."""

import logging

from faults.readers import OTHERS, RULES, SETS
from faults.rows import attack, complaint, outcome, table

from cai.data.records import Prompt
from cai.dialogue import human
from cai.errors import UserError


def test_rows_as_they_should_be_are_read(tmp_path):
    for number, reader in enumerate([*SETS, *OTHERS]):
        path = tmp_path / str(number) / reader.file
        path.parent.mkdir()
        path.write_bytes(reader.write(reader.rows))
        allowed = {"constitution, comparisons": "refused"}.get(reader.name, "read")
        assert outcome(reader, path, RULES[0]) == (allowed, None), reader.name


def test_mutated_rows_are_read_or_refused_in_a_sentence(caplog):
    caplog.set_level(logging.ERROR)
    counts, failures = attack(100)
    assert not failures, "\n".join(failures)
    assert sum(counts.values()) == 100
    for kind in ("read", "refused"):
        assert sum(n for (_, result), n in counts.items() if result == kind) > 9
    assert "failed" in table(counts)


def test_what_nobody_can_bear_is_a_failure(tmp_path):
    class Reader:
        def __init__(self, read):
            self.read = read

    def fails(error):
        raise error

    prompts = [Prompt("a", "k", (human(text),)) for text in ("one", "two")]
    assert complaint(prompts) == "two prompts of one id"
    assert complaint(["x" * 10**7]) == "a text beyond the bound"
    for read in (lambda *_: ["\ud800"], lambda *_: fails(KeyError("a")), lambda *_: prompts,
                 lambda *_: fails(UserError("x" * 10**4))):  # fmt: skip
        assert outcome(Reader(read), tmp_path, RULES[0])[0] == "failed"
