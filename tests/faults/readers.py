"""Everything that reads rows from outside, each with rows that it takes."""

import gzip
import json
from pathlib import Path

from data_files import EXAMPLES, FORMATS, PAIRS, PROMPTS, asked, dialogue, said

from cai.classify import classify_file
from cai.config import BadRows, ConstitutionConfig, DataConfig, DataSource
from cai.config.nodes import BUILTIN
from cai.constitution.principles import COMPARISON_FILE, CRITIQUE_FILE, load_constitution
from cai.data.attempts import read_attempts
from cai.data.choices import read_choices
from cai.data.folder import FILES, read_folder
from cai.data.forms import COLUMNS, Forms
from cai.data.hh import read_hh_rlhf
from cai.data.pairs import read_pairs
from cai.data.paper_evals import FILES as PAPER_FILES
from cai.data.paper_evals import PaperTest, read_paper_tests
from cai.data.persona import read_persona
from cai.data.rows import read_rows
from cai.data.source import Source
from cai.dialogue import read_messages, read_prompt
from cai.score import check_rows

DEMONSTRATION = {
    "response": "Do.", "critique": "Bad.", "revision": "Don't.", "worse": "No.",
    "reasoning": "{first} is worse than {second}.", "principle": "harm-general",
}  # fmt: skip
OPTIONS = "Which?\n (A) yes\n (B) no\nThe answer is:"


class Reader:
    """A name, a file's name, rows and what reads them; ``head`` are files beside it."""

    def __init__(self, name, file, rows, read, write=None):
        self.name, self.file, self.rows, self.read = name, file, rows, read
        self.write = write or FORMATS["rows.jsonl.gz" if file.endswith(".gz") else "rows.jsonl"]


def _set(form, rows):
    def read(path, bad):
        forms = Forms("set", "people", "set-")
        return read_rows(Source("key", path, wanted=COLUMNS), getattr(forms, form), bad)

    return [(file, rows, read, write) for file, write in FORMATS.items()]


def _numbered(make):
    return [{"id": n, **make(n)} for n in range(4)]


def _sets():
    found = []
    demonstrations = {"demonstration": lambda n: {"prompt": f"Q {n}?", **DEMONSTRATION}}
    kinds = {"prompt": PROMPTS, "example": EXAMPLES, "comparison": PAIRS,
             "demonstration": demonstrations}  # fmt: skip
    for form, makers in kinds.items():
        for name, make in makers.items():
            for file, rows, read, write in _set(form, _numbered(make)):
                found.append(Reader(f"{form}: {name}", file, rows, read, write))
    return found


def _folder(name):
    rows = [json.loads(line) for line in (BUILTIN / name).read_text().splitlines()[:4]]

    def read(path, bad):
        for other in FILES:
            if other != name and not (path.parent / other).exists():
                (path.parent / other).write_text("")
        return read_folder(path.parent, bad)

    return Reader(f"data.folder: {name}", name, rows, read)


def _hh(path, bad):
    (path.parent / "harmless-base").mkdir()
    path.rename(path.parent / "harmless-base" / path.name)
    config = DataConfig(source=DataSource.hh_rlhf, folder=str(path.parent), revision=None,
                        bad_rows=bad)  # fmt: skip
    return read_hh_rlhf(config, "harmless-base")


def _published(path, bad):
    other = {CRITIQUE_FILE: COMPARISON_FILE, COMPARISON_FILE: CRITIQUE_FILE}[path.name]
    texts = {CRITIQUE_FILE: {"a": {"prompt": ["x"], "edit_request": "y"}}, COMPARISON_FILE: ["z"]}
    (path.parent / other).write_text(json.dumps(texts[other]))
    return load_constitution(
        ConstitutionConfig("n", "d", None, str(path.parent), revision=[], comparison=[])
    )


def _classified(path, bad):
    target = path.with_name("out.jsonl")
    classify_file(path, target)
    return [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]


class _Scorer:
    """Reads a row as a preference model does, with a context of 2,000 characters."""

    def tree(self, row):
        if "response" in row:
            talk = read_prompt(row.get("prompt", row.get("messages")))
            text = str(talk) + str(row["response"])
        else:
            text = str(read_messages(row.get("messages")))
        if len(text) > 2000:
            raise ValueError("too long")
        return text.encode()


def _others():
    pair = _numbered(PAIRS["texts"])
    choice = [{"a": "x", "b": "y", "prompt_id": "p", "axis": "helpfulness", "choice": c}
              for c in ("a", "b", "tie", 0.5)]  # fmt: skip
    attempts = [{"transcript": dialogue(f"Q {n}?", "A."), "rating": n} for n in range(4)]
    persona = [json.loads(s) for s in (BUILTIN / "persona.jsonl").read_text().splitlines()[:4]]
    hhh = [{"prompt": f"{n} {OPTIONS}", "corrects": [" (A)"], "incorrects": [" (B)"],
            "text_correct": dialogue("Q", "yes"), "text_incorrect": dialogue("Q", "no")}
           for n in range(4)]  # fmt: skip
    replies = [{"messages": asked(f"Q {n}?") + said("Sorry, no."), "id": n} for n in range(4)]
    answers = [{"prompt": f"Q {n}?", "response": "Sorry, no.", "id": n} for n in range(4)]
    critiques = {name: {"prompt": ["x"], "edit_request": "y"} for name in "abcd"}

    def one_list(rows):
        return gzip.compress(json.dumps(rows).encode())

    def document(rows):
        return json.dumps(rows[0] if len(rows) == 1 else rows).encode()

    return [
        Reader("pm.pretrain", "a.jsonl", pair, lambda p, bad: read_pairs(p, "pm.pretrain", bad)),
        Reader("human_choices", "a.jsonl", choice, lambda p, bad: read_choices(p, "xy", "p", bad)),
        Reader("ratings", "a.jsonl", attempts, read_attempts),
        Reader("ratings, published", "a.jsonl.gz", attempts, read_attempts, one_list),
        Reader("persona", "a.jsonl", persona, lambda p, _: read_persona(p)),
        Reader("paper tests", PAPER_FILES[PaperTest.hhh], hhh,
               lambda p, bad: read_paper_tests(p.parent, bad)),
        Reader("hh-rlhf", "train.jsonl.gz", _numbered(PAIRS["published texts"]), _hh),
        Reader("constitution", CRITIQUE_FILE, [critiques], _published, document),
        Reader("constitution, comparisons", COMPARISON_FILE, [{"a": ["x"]}, {}], _published,
               document),
        Reader("cai.classify", "a.jsonl", replies, _classified),
        Reader("cai.classify", "a.jsonl", answers, _classified),
        Reader("cai.score", "a.jsonl", replies, lambda p, _: check_rows(_Scorer(), Path(p))),
        Reader("cai.score", "a.jsonl", answers, lambda p, _: check_rows(_Scorer(), Path(p))),
    ]  # fmt: skip


SETS = _sets()
OTHERS = [*(_folder(name) for name in FILES), *_others()]
RULES = (BadRows.strict, BadRows.skip)
