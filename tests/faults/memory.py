"""Too little memory ends a run with a sentence, and the same command then gives the same result.

``python -m tests.faults.memory`` gives a run of real processes five limits of address space, and
prints how each ended; a rerun without a limit must give the same checksums as one that had none.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from cai.sentences import sentence_of

SHARES = (0.3, 0.5, 0.7, 0.85, 0.95)
"""Limits, as shares of the address space that the run takes when there is none."""
COMMAND = [sys.executable, "-m", "cai", "model=tiny", "scale=tour", "hardware=cpu", "tracking=off",
           "stage=sft", "hardware.threads=1"]  # fmt: skip


def run(outputs: Path, limit: int | None) -> tuple[int, str]:
    """Run to SL-CAI under a limit in bytes; return the exit code and what was said."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*COMMAND, f"outputs={outputs}"], capture_output=True, text=True, check=False,
        preexec_fn=_limited(limit), env=environment, timeout=3600,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def _limited(limit: int | None) -> Callable[[], None] | None:
    if limit is None:
        return None
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def checksums(outputs: Path) -> dict[str, dict[str, str]]:
    """Return the checksums of every result's files."""
    return {
        record.parent.name: json.loads(record.read_text())["files"]
        for record in sorted((outputs / "artifacts").glob("*/artifact.json"))
    }


def address_space(outputs: Path) -> int:
    """Run without a limit and return the most address space that it took."""
    with subprocess.Popen(
        [*COMMAND, f"outputs={outputs}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        peak = 0
        while process.poll() is None:
            peak = max(peak, _peak(process.pid))
            try:
                process.wait(0.2)
            except subprocess.TimeoutExpired:
                continue
    assert process.returncode == 0
    return peak


def _peak(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    found = [int(line.split()[1]) << 10 for line in lines if line.startswith("VmPeak")]
    return max(found, default=0)


def judged(code: int, said: str) -> str:
    """Name how a run ended."""
    if "Traceback" in said:
        return "traceback"
    if code == 0:
        return "done"
    if code == 1 and "not enough memory" in said:
        return "sentence"
    return f"exit {code}"


def starved(work: Callable[[], object]) -> str | None:
    """Do something in a process of its own that gets no more memory than it has; say how it ended.

    Returns:
        The sentence; None if there was none.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _give_back()
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        signal.alarm(240)
        try:
            work()
        except Exception as error:  # noqa: BLE001 - it is told, whatever it is
            os.write(writer, (sentence_of(error) or "").encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as told:
        said = told.read()
    os.waitpid(child, 0)
    return said or None


def _give_back() -> None:
    """Let the allocator return what it keeps for later, which no limit would count as new."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


WELL = {"done", "sentence"}


def main() -> int:
    """Run the long form."""
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain"
        peak = address_space(plain)
        sys.stdout.write(f"without a limit: {peak >> 20} MiB of address space\n")
        for share in SHARES:
            outputs = Path(folder) / f"limited-{share}"
            limit = int(peak * share)
            end = judged(*(found := run(outputs, limit)))
            code, _ = run(outputs, None)
            same = code == 0 and checksums(outputs) == checksums(plain)
            bad += end not in WELL or not same
            last = (found[1].strip().splitlines() or [""])[-1]
            sys.stdout.write(
                f"{limit >> 20:6} MiB ({share:.0%}): {end}; rerun "
                f"{'the same' if same else 'DIFFERENT'}: {last[:200]}\n"
            )
            sys.stdout.flush()
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
