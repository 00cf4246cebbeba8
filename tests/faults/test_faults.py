"""A few faults of each kind; ``python -m tests.faults ... --long`` tries them all."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

needs = pytest.mark.skipif(
    sys.platform != "linux" or not (shutil.which("cc") or shutil.which("gcc")),
    reason="breaking single operations takes Linux and a C compiler",
)


@needs
@pytest.mark.timeout(900)
def test_a_few_faults_of_each_kind_are_held():
    words = [sys.executable, "-m", "tests.faults", "short"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.count("tried, 0 not held") == 3
