"""Random commands: each is a plan or a sentence, and none leaves a secret or a number that is none.

``python -m tests.faults.configs 1000`` gives a thousand of them to the real command, in this
process and up to the point where a model would be loaded, and prints how they ended.
"""

from __future__ import annotations

import contextlib
import copy
import io
import math
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

import cai.__main__ as program
from cai import sweep
from cai.composition import CONF, schema, typed

SECRET = "sk-5ecret0123456789"
LIMIT = 60
"""Seconds of the processor that a command may take; ten times as many on the clock."""
NUMBERS = (
    "nan", "inf", "-inf", "-1", "0", "-0.0", "1", "2", "0.5", "1e308", "-1e308", "1e-308", "1e20",
    str(10**20), str(2**63), str(2**64), str(-(2**64)), "1" * 400, "9" * 5000, "", "null", "true",
    "[]", "[1,2]", "{a:1}", "'3'", "0x10", "1_000", "١٢", ".inf", ".nan", "+1", "--1", "1e", "3.",
)  # fmt: skip
TEXTS = (
    "", "null", "3", "true", "[]", "{}", "a=b", "'a=b'", '"a b"', "${", "${seed}", "${nope}",
    "${oc.env:HOME}", "${oc.env:NOPE}", "../..", "/dev/zero", "/dev/null", "/proc/self/mem", "/",
    ".", "~", "\x1b[31mred", "\x1b]0;t\x07", "\x00", "\u202egnp", "\udcff", "x" * 5000, "[" * 2000,
    "{" * 500, "'" * 3, '"', "\\", "a,b", "a:b", "#x", "%s%n", "{{7*7}}", "$(id)", "`id`", "-",
    f"http://user:{SECRET}@host/v1", f"http://host/v1?key={SECRET}", f"'http://h/?k={SECRET}'",
    f"http://host/v1#{SECRET}", "http://[", "http://host:99999", "file:///etc/passwd", "nope",
)  # fmt: skip
WORDS = (
    "", "=", "==", "x", "-x", "--nope", "+", "~", "+=1", "~=", "a.b.c", ".a=1", "a..b=1", "a.=1",
    "@=1", "a@b@c=1", "a@:b=1", "seed", "seed==1", "++seed=1", "+seed=1", "~seed", "~pm", "~model",
    "~hydra", "hydra=null", "hydra.run.dir=null", "hydra.job.name=[", "hydra/launcher=nope",
    "hydra.searchpath=[file:///nope]", "hydra.mode=nope", "hydra.sweeper.params=3", "+sweep=nope",
    "stage=judge,rl", "seed=1,2", "seed=range(1,3)", "seed=choice(1,2)", "seed=glob(*)",
    "seed=int('3')", "seed=float(1)", "seed=str(1)", "seed=sort(3,2)", "model=[tiny,hub]",
    "model={a:1}", "+model=tiny", "pm=null", "pm={}", "pm=[]", "rl.ppo={clip:0.1}", "/model=tiny",
    "rl.ppo={clap:1}", "trainer.callbacks.a=3", "trainer.callbacks.a._target_=os.system",
    "+trainer.callbacks.a={_target_:builtins.exit}", "+model.template_options.x=nan",
    "constitution.revision=[]", "constitution.revision=[3]", "constitution.revision=[{id:3}]",
    "constitution.comparison=null", "constitution.n_principles=nan", "optimizer@nope=adamw",
    "optimizer@pm.optimizer=null", "model@feedback.labeller=hub", "model@pm.base=tiny",
)  # fmt: skip


def leaves(kind: type[Any], prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Yield the keys of the schema that hold a value, and whether that is a number."""
    hints = get_type_hints(kind)
    for item in fields(kind):
        name, hint = prefix + item.name, hints[item.name]
        inner = [t for t in (hint, *get_args(hint)) if is_dataclass(t)]
        if inner and isinstance(inner[0], type):
            yield from leaves(inner[0], f"{name}.")
        else:
            yield name, bool({int, float} & {hint, *get_args(hint)})


KEYS = sorted(set(leaves(schema())))
NUMERIC = [key for key, numeric in KEYS if numeric]
OTHERS = [key for key, numeric in KEYS if not numeric]
GROUPS = sorted(folder.name for folder in CONF.iterdir() if folder.is_dir())


def _of_group(source: random.Random) -> str:
    group = source.choice(GROUPS)
    files = [path.stem for path in (CONF / group).glob("*.yaml")]
    return f"{group}={source.choice([*files * 3, *TEXTS[:12], 'nope'])}"


def _typo(source: random.Random) -> str:
    key, sign = source.choice(KEYS)[0], source.choice(["", "+", "++", "~"])
    place = source.randrange(len(key) + 1)
    return f"{sign}{key[:place]}{source.choice('axz._')}{key[place:]}={source.choice(NUMBERS)}"


def _junk(source: random.Random) -> str:
    signs = "=+~@.,:[]{}()'\"\\$ \t#%-_ax1é\x1b\x7f"
    return "".join(source.choices(signs, k=source.randrange(1, 30)))


KINDS: dict[str, Callable[[random.Random], str]] = {
    "number": lambda source: f"{source.choice(NUMERIC)}={source.choice(NUMBERS)}",
    "text": lambda source: f"{source.choice(OTHERS)}={source.choice(TEXTS)}",
    "file of a group": _of_group,
    "misspelt key": _typo,
    "odd word": lambda source: source.choice(WORDS),
    "junk": _junk,
    "secret": lambda source: (
        f"{source.choice(['feedback', 'judge'])}.endpoint.url="
        + source.choice([text for text in TEXTS if SECRET in text])
    ),
}
"""Kinds of override, each with what makes one."""


@dataclass(frozen=True)
class Case:
    """A command: its number, the kinds of its overrides, and these."""

    number: int
    kinds: tuple[str, ...]
    words: tuple[str, ...]


def case(number: int) -> Case:
    """Make a case; the same number is the same one."""
    source = random.Random(number)
    names = list(KINDS)
    kinds = [names[number % len(names)], *source.choices(names, k=source.choice([0, 0, 1, 3]))]
    return Case(number, tuple(kinds), tuple(KINDS[kind](source) for kind in kinds))


def keep_files() -> None:
    """Read each file of conf/ once: parsing them again and again takes most of the time."""
    kept: dict[str, Any] = {}
    load = FileConfigSource.load_config

    def cached(self: FileConfigSource, config_path: str) -> Any:
        key = f"{self.path}/{config_path}"
        if key not in kept:
            kept[key] = load(self, config_path)
        return copy.deepcopy(kept[key])

    FileConfigSource.load_config = cached


class Hang(BaseException):
    """A command that took too long."""


def _plan_only(reached: list[Any]) -> Callable[[Any], None]:
    """Stand in for a job: do what it does before it loads a model."""

    def job(cfg: Any) -> None:
        from cai.contracts.table import stages
        from cai.pipeline.plan import plan
        from cai.pipeline.store import Store

        try:
            config = typed(cfg)
            reached.append(config)
            plan(config, Store(Path(config.outputs) / "artifacts"), stages())
        except Exception as error:
            sentence = program.sentence_of(error)
            if sentence is None:
                raise
            sweep.fail(sentence)

    return job


def outcome(this: Case, folder: Path) -> tuple[str, str]:
    """Give a case to the command; return how it ended and what it said."""
    reached: list[Any] = []
    said = io.StringIO()
    argv = ["cai", "model=tiny", "scale=tour", "hardware=cpu", "tracking=off",
            f"outputs={folder}/out", *this.words]  # fmt: skip
    job, before = program._launch, (sys.argv, Path.cwd())
    program._launch, sys.argv = _plan_only(reached), argv
    sweep.failures.clear()
    GlobalHydra.instance().clear()
    HydraConfig.instance().cfg = None
    for clock in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(clock, _too_long)
    signal.setitimer(signal.ITIMER_REAL, 10 * LIMIT)
    signal.setitimer(signal.ITIMER_PROF, LIMIT)
    os.chdir(folder)
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            code = program.main()
    except SystemExit as end:  # of Hydra's own parser
        code = int(end.code or 0)
    except Hang:
        return "hang", ""
    except BaseException:  # noqa: BLE001 - whatever comes out here is a traceback for a user
        return "traceback", traceback.format_exc()
    finally:
        for timer in (signal.ITIMER_REAL, signal.ITIMER_PROF):
            signal.setitimer(timer, 0)
        program._launch, sys.argv = job, before[0]
        os.chdir(before[1])
    return _judged(code, said.getvalue(), reached, folder)


def _judged(code: int, said: str, reached: list[Any], folder: Path) -> tuple[str, str]:
    """Look at what a command left behind."""
    if "Traceback" in said:
        return "traceback", said
    if any(not_a_number(config) for config in reached):
        return "number that is none accepted", said
    for path in folder.rglob("*"):
        if path.is_file() and SECRET.encode() in path.read_bytes():
            return "secret written", str(path)
    if SECRET in said:
        return "secret said", said
    if not all(c.isprintable() or c in "\n\t" for c in said):
        return "orders to the terminal", said
    if code == 0:
        return "planned", said
    return ("sentence" if code == 1 and said.strip() else f"exit {code}"), said


def not_a_number(value: Any, key: str = "") -> bool:
    """Tell whether there is a number that is not finite; a norm may be, for no clipping."""
    if is_dataclass(value):
        return any(not_a_number(getattr(value, f.name), f.name) for f in fields(value))
    if isinstance(value, list | tuple):
        return any(not_a_number(item, key) for item in value)
    if isinstance(value, dict):
        return any(not_a_number(item, name) for name, item in value.items())
    allowed = key == "max_grad_norm" and value == math.inf
    return isinstance(value, float) and not math.isfinite(value) and not allowed


def _too_long(number: int, frame: Any) -> None:
    raise Hang


WELL = {"planned", "sentence", "exit 2"}
"""How a command may end; 2 is Hydra's own word for a flag that it does not know."""


def main() -> int:
    """Run the long form."""
    wanted, first = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    os.environ["HF_HUB_OFFLINE"] = "1"
    keep_files()
    table: Counter[tuple[str, str]] = Counter()
    bad = 0
    started = time.monotonic()
    for number in range(first, first + wanted):
        this = case(number)
        with tempfile.TemporaryDirectory() as folder:
            end, said = outcome(this, Path(folder))
        table[this.kinds[0], end] += 1
        if end not in WELL:
            bad += 1
            words = [ascii(word[:100]) for word in this.words]
            sys.__stdout__.write(f"{number}: {end}: {words}: {said[-300:]!a}\n")
            sys.__stdout__.flush()
        if (number - first) % 100 == 99:
            sys.__stdout__.write(f"{number - first + 1} commands, {bad} ended badly\n")
            sys.__stdout__.flush()
    ends = sorted({end for _, end in table})
    lines = [f"{'first override':18}" + "".join(f"{end:>12}" for end in ends)]
    for kind in KINDS:
        lines.append(f"{kind:18}" + "".join(f"{table[kind, end]:12}" for end in ends))
    seconds = time.monotonic() - started
    lines.append(f"{wanted} commands in {seconds:.0f} s, {bad} of them ended badly")
    sys.__stdout__.write("\n".join(lines) + "\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
