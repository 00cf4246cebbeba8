"""Checksums of everything that tiny runs make: did a change of the house change a result?

``python benchmarks/golden.py make FILE`` before the change, ``check FILE`` after it. One thread,
the random two-layer model, several recipes and most options. What names a result (fingerprints,
settings) is left out, what is in it is compared. Other versions of torch and other processors round
otherwise, so a file is only good on the machine where it was made.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

BUILTIN = Path(__file__).resolve().parents[1] / "cai" / "data" / "builtin"
COMMON = ("model=tiny", "scale=tour", "tracking=off", "hardware=cpu", "hardware.threads=1")
MODES = "evaluate.paper_tests.modes=[zero_shot,few_shot,cot,cot_5,pm]"
RUNS = {
    "tour": (),
    "chains": ("recipe=rl_cai_cot", "stage=rl"),
    "dpo": ("recipe=dpo_cai", "stage=rl"),
    "people": ("recipe=hh_rlhf", "evaluate.persona=false"),
    "probe": ("stage=feedback", "feedback.method=probe"),
    "contrast": ("stage=feedback", "feedback.method=contrast"),
    "whole": ("stage=pm", "pm.full_finetuning=true"),
    "wide": (
        "revise.few_shots=1", "revise.prompts=3", "sft.helpful_source=model", "sft.start=base",
        "feedback.few_shots=1", "feedback.principles=ensemble", "feedback.average=log_odds",
        "pm.ensemble.members=2", "pm.ensemble.lower_bound=0.5", "pm.pretrain={inputs}/pairs.jsonl",
        "rl.iterations=3", "rl.watch.evaluate_every=1", "rl.ppo.epochs=2", "rl.critic.start=pm",
        "rl.ppo.entropy_bonus=0.01", "rl.kl.control=adaptive", "rl.critic.warmup_iterations=0",
        "evaluate.baselines.snapshots=2", "evaluate.baselines.best_of=2", "evaluate.samples=2",
        "evaluate.opinions.human_choices={inputs}/choices.jsonl",
        "evaluate.harmfulness.ratings={inputs}/rated.jsonl",
        "evaluate.paper_tests.folder={inputs}", "evaluate.paper_tests.rows=6", MODES,
    ),
}  # fmt: skip
"""Name of each run and what it sets."""
LEFT_OUT = re.compile(r"artifact\.json|adapter_config\.json|(^|/)\.")
"""Files that say how a result was made, not what it is."""


def builtin(name: str) -> list[dict[str, Any]]:
    """Read a file of the built-in data."""
    return [json.loads(line) for line in (BUILTIN / f"{name}.jsonl").read_text().splitlines()]


def write_inputs(folder: Path) -> None:
    """Write what the widest run reads: pairs, choices, ratings and the paper's comparisons."""
    pairs = builtin("comparisons")[::20]
    rows = [
        {"prompt": r["messages"], "chosen": r["chosen"], "rejected": r["rejected"]} for r in pairs
    ]
    _write(folder / "pairs.jsonl", rows)
    choice = {"prompt_id": "rt-fraud_scams-002", "axis": "harmlessness"}
    names = ("helpful", "rl_cai", "sl_cai", "helpful")
    _write(
        folder / "choices.jsonl",
        [{**choice, "a": a, "b": b, "choice": "tie"} for a, b in itertools.pairwise(names)],
    )
    rated = [
        {"transcript": f"\n\nHuman: {r['messages'][0]['content']}\n\nAssistant: {r['response']}",
         "rating": float(n % 5)}
        for n, r in enumerate(builtin("demonstrations"))
    ]  # fmt: skip
    _write(folder / "rated.jsonl", rated)
    _write(
        folder / "438HHHEvaluations.jsonl",
        [_hhh(n, r) for n, r in enumerate(builtin("judgements"))],
    )


def _hhh(n: int, row: dict[str, Any]) -> dict[str, Any]:
    asked = f"\n\nHuman: {row['messages'][0]['content']}\n\nAssistant:"
    replies = (row["chosen"], row["rejected"]) if n % 2 else (row["rejected"], row["chosen"])
    options = "".join(f"\n ({k}) [[[{r}]]]" for k, r in zip("AB", replies, strict=True))
    right, wrong = (" (A)", " (B)") if n % 2 else (" (B)", " (A)")
    return {
        "prompt": f"Consider the following conversation:{asked}\n\nWhich is better?\nOptions:"
        f"{options}\nThe answer is:",
        "corrects": [right],
        "incorrects": [wrong],
        "text_correct": f"{asked} {row['chosen']}",
        "text_incorrect": f"{asked} {row['rejected']}",
    }


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def run(outputs: Path, inputs: Path, overrides: tuple[str, ...]) -> list[Path]:
    """Make one run and return its results."""
    given = [word.format(inputs=inputs) for word in overrides]
    command = [sys.executable, "-m", "cai", *COMMON, f"outputs={outputs}", *given]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(given)}\n{done.stdout}\n{done.stderr}")
    names = re.findall(
        r": (?:making|resuming|reusing) ([a-z_]+-[0-9a-f]+)", done.stdout + done.stderr
    )
    return [outputs / "artifacts" / name for name in names]


def content(path: Path) -> bytes:
    """Return what a file holds, without names that depend on settings."""
    data = path.read_bytes()
    if path.suffix not in {".json", ".jsonl", ".md"}:
        return data
    text = data.decode()
    if path.name == "summary.json":
        summary = json.loads(text)
        summary.pop("settings")
        text = json.dumps(summary, sort_keys=True)
    text = re.sub(r"\b([a-z]+)-[0-9a-f]{12}\b", r"\1", text)
    return re.sub(r"\b[0-9a-f]{64}\b", "fingerprint", text).encode()


def checksums(artifact: Path) -> dict[str, str]:
    """Digest every file of a result."""
    files = sorted(p for p in artifact.rglob("*") if p.is_file())
    named = {path.relative_to(artifact).as_posix(): path for path in files}
    return {
        name: hashlib.sha256(content(path)).hexdigest()[:16]
        for name, path in named.items()
        if not LEFT_OUT.search(name)
    }


def measure(only: list[str]) -> dict[str, dict[str, dict[str, str]]]:
    """Make all runs; return checksums by run, stage and file."""
    os.environ |= {"WANDB_MODE": "offline", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    found: dict[str, dict[str, dict[str, str]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        inputs, outputs = Path(scratch) / "inputs", Path(scratch) / "outputs"
        inputs.mkdir()
        write_inputs(inputs)
        for name, overrides in RUNS.items():
            if not only or name in only:
                made = run(outputs, inputs, overrides)
                found[name] = {path.name.split("-")[0]: checksums(path) for path in made}
    return found


def main() -> None:
    """Write the checksums or compare with them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["make", "check"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", nargs="*", default=[], choices=RUNS)
    options = parser.parse_args()
    found = measure(options.only)
    if options.action == "make":
        options.file.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
        return
    known = json.loads(options.file.read_text())
    faults = [
        f"{name}: {stage}/{file}"
        for name, stages in found.items()
        for stage, files in stages.items()
        for file in sorted({*files, *known[name].get(stage, {})})
        if files.get(file) != known[name].get(stage, {}).get(file)
    ]
    for name, stages in found.items():
        faults += [f"{name}: {stage} is gone" for stage in known[name].keys() - stages.keys()]
    count = sum(len(files) for stages in found.values() for files in stages.values())
    sys.stdout.write("\n".join([*faults, f"{count} files, {len(faults)} differ\n"]))
    raise SystemExit(bool(faults))


if __name__ == "__main__":
    main()
