"""Every family through every stage; minutes each, so only with ``--every-stage``."""

import subprocess
import sys

import families
import pytest

TOUR = ("scale=tour", "tracking=off", "hardware=cpu", "hardware.threads=1", "model=folder")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", families.FAMILIES)
def test_a_family_goes_through_every_stage(name, tmp_path, request):
    if not request.config.getoption("--every-stage"):
        pytest.skip("takes minutes: give --every-stage")
    folder = families.make(tmp_path / "model", name)
    given = (
        f"model.path={folder}", f"model.dialect={families.FAMILIES[name].dialect.value}",
        "model.dtype=fp32", "model.context=8192", "model.method.helpful_tuning=true",
        "model.lora.rank=4", f"outputs={tmp_path}/outputs",
    )  # fmt: skip
    command = [sys.executable, "-m", "cai", *TOUR, *given]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(tmp_path.glob("outputs/runs/*/report.html"))
