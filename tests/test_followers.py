"""Who was started by another process ends with it, and takes its scratch folder along."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cai import followers

FOLLOWER = """
import os, time
from pathlib import Path
from cai import followers
while not Path("go").exists():
    time.sleep(0.01)
with followers.scratch_folder() as folder:
    (folder / "half").write_text("written")
    followers.follow()
    Path("folder").write_text(str(folder))
    time.sleep(60)
"""
LEADER = """
import subprocess, sys, time
from cai import followers
followers.lead()
print(subprocess.Popen([sys.executable, "-c", sys.argv[1]]).pid, flush=True)
time.sleep(60)
"""


def lives(process):
    """Tell whether a process runs; one that has ended is there until somebody asks for its code."""
    stat = Path(f"/proc/{process}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}


def until(true, seconds=20):
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return true()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found by /proc")
@pytest.mark.parametrize("soon", [False, True])
def test_a_follower_ends_with_its_leader_and_leaves_nothing(tmp_path, soon):
    """Also if the leader has gone before the follower looks for it."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environment = {**os.environ, "TMPDIR": str(scratch), "PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-c", LEADER, FOLLOWER]
    with subprocess.Popen(
        words, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as leader:
        follower = int(leader.stdout.readline())
        if not soon:
            (tmp_path / "go").touch()
            assert until((tmp_path / "folder").exists)
            assert list(scratch.iterdir())
            assert lives(follower)
        leader.send_signal(signal.SIGKILL)
        leader.wait()
    (tmp_path / "go").touch()
    try:
        assert until(lambda: not lives(follower))
        assert (tmp_path / "folder").exists()
        assert not list(scratch.iterdir())
    finally:
        if lives(follower):
            os.kill(follower, signal.SIGKILL)


def test_the_command_looks_for_its_leader_before_it_loads_libraries(tmp_path):
    environment = {**os.environ, "LOCAL_RANK": "1", followers.LEADER: "1", "TMPDIR": str(tmp_path),
                   "PYTHONPATH": os.pathsep.join(sys.path)}  # fmt: skip
    environment.pop("RANK", None)
    words = [sys.executable, "-X", "importtime", "-m", "cai", "model=tiny", "hardware=ddp"]
    ended = subprocess.run(
        words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == -signal.SIGKILL
    assert "omegaconf" in ended.stderr
    assert " torch" not in ended.stderr
    assert not list(tmp_path.iterdir())


def test_a_scratch_folder_goes_when_its_block_ends():
    with followers.scratch_folder() as folder:
        (folder / "half").touch()
    assert not folder.exists()
