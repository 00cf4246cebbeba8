"""The data of a run as a folder that ``datasets`` loads, JSONL beside it, and a card."""

from __future__ import annotations

import json
from pathlib import Path

from cai.errors import UserError
from cai.export.card import data_licences, lineage_table
from cai.export.folder import appearing, check_free
from cai.export.lineage import Lineage, check_unchanged, trace
from cai.export.tables import OTHER, PREFERENCE, Table, tables_of
from cai.export.take import CARD, Wanted
from cai.files import sha256_of, write_text

PARQUET, LINES = "train.parquet", "train.jsonl"


def take_data(wanted: Wanted) -> None:
    """Write the rows of every stage.

    Raises:
        UserError: If there are none, or one of them has changed since it was made.
    """
    check_free(wanted.to)
    lineage = trace(wanted.run)
    for result in lineage.results.values():
        check_unchanged(result, result.path)
    tables = tables_of(lineage)
    if not tables:
        raise UserError(f"{wanted.run} has no rows of any stage: give a run that made some")
    with appearing(wanted.to) as folder:
        for table in tables:
            _write(table, folder / table.name)
        configs = "\n".join(_config(folder / table.name) for table in tables)
        write_text(folder / CARD, _card(configs, tables, lineage))


def _write(table: Table, folder: Path) -> None:
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    folder.mkdir()
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in table.rows)
    with (folder / LINES).open("w", encoding="utf-8") as file:
        file.writelines(lines)
    Dataset.from_list(_same_keys(table)).to_parquet(folder / PARQUET)


def _same_keys(table: Table) -> list[dict[str, object]]:
    """Give every row all columns: a set takes its own from the first."""
    keys = dict.fromkeys(key for row in table.rows for key in row)
    return [{key: row.get(key) for key in keys} for row in table.rows]


def _config(folder: Path) -> str:
    """Tell ``datasets`` of a set.

    It keeps what it has loaded by the name of a folder and by what is said here, not by what is in
    the files: two exports into folders of one name would be the first one twice.
    """
    return (
        f"- config_name: {folder.name}\n  data_files: {folder.name}/{PARQUET}\n"
        f"  description: SHA-256 of {LINES} {sha256_of(folder / LINES)}"
    )


def _card(configs: str, tables: list[Table], lineage: Lineage) -> str:
    rows = "\n".join(
        f"| `{t.name}` | {len(t.rows)} | {_form(t)} | {t.about} | `{t.artifact}` |" for t in tables
    )
    pairs = next((t.name for t in tables if t.form == PREFERENCE), None)
    return f"""---
license: other
tags:
- constitutional-ai
- rlaif
- trl
configs:
{configs}
---
# Data of a run of Constitutional AI

The rows that the stages of Constitutional AI (Bai et al. 2022, <https://arxiv.org/abs/2212.08073>)
made: prompts, replies, critiques, revisions and preferences. **Many prompts ask for harm, and many
replies are harmful**, for that is what the method learns from; labels are a model's opinion where
`source` is `harmless`. Each set lies here as Parquet, for `datasets`, and as JSONL.

| set | rows | columns that TRL reads | what | from |
|---|---|---|---|---|
{rows}

## Use

```python
from datasets import load_dataset

rows = load_dataset(THIS_FOLDER, {(pairs or tables[0].name)!r}, split="train")
```
{_training(pairs)}
## Lineage

{lineage_table(lineage)}

## Licence

The licences of all that it was made from apply: prompts and human labels are under \
{", ".join(data_licences(lineage))}; replies were written by models, and their licences may say \
what may be done with them.
"""


def _form(table: Table) -> str:
    return table.form if table.form == OTHER else f"`{table.form}`"


def _training(pairs: str | None) -> str:
    """Say how to train on preferences, where there are some."""
    if pairs is None:
        return ""
    return """
TRL's `RewardTrainer` and `DPOTrainer` take `prompt`, `chosen` and `rejected` as they are;
`probability` is the soft label of `chosen`, for a loss that knows one.
"""
