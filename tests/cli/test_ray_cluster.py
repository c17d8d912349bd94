"""A run joins a Ray cluster that is there already, however it is named, and leaves it as it was."""

from __future__ import annotations

import importlib.util
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from killed_track import board, track_text

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),  # Ray starts within seconds here, but not on a busy machine
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra `ray`"),
]

TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
"""As between a user's machines; else Ray would look into the home folder, on one side only."""
START_SECONDS = 240
RUN_SECONDS = 400

LEFT = """
import sys, time
import ray

ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
for _ in range(600):  # workers that were ended give their cores back a moment later
    if ray.available_resources().get("CPU") == 2:
        break
    time.sleep(0.1)
print(sum(node["Alive"] for node in ray.nodes()), ray.available_resources().get("CPU"))
"""
"""Prints the machines of a cluster and its free cores."""


@dataclass(frozen=True)
class Cluster:
    """A head node that somebody else started."""

    address: str
    temporary: Path
    """`RAY_TMPDIR` of the head node and of all runs: whatever starts a cluster below it leaves a session there."""

    def sessions(self) -> list[Path]:
        return [path for path in (self.temporary / "ray").glob("session_*") if not path.is_symlink()]

    def joined_by(self, pid: int) -> bool:
        """Whether the cluster has the log of this driver."""
        (session,) = self.sessions()
        return bool(list((session / "logs").glob(f"python-core-driver-*_{pid}.log")))


def environment(**more: str) -> dict[str, str]:
    mine = {key: value for key, value in os.environ.items() if key not in ("RAY_ADDRESS", "RAY_TMPDIR")}
    return {**mine, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", **TOKEN, **more}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--port", "0"]
    command += ["--num-cpus", "2", "--num-gpus", "0", "--object-store-memory", "200000000"]
    command += ["--include-dashboard", "false", "--node-ip-address", "127.0.0.1"]
    # Ray's sockets are below it, and 107 characters is all they may have.
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as short:
        temporary = Path(short)
        with (temporary / "head.log").open("wb") as log:
            head = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env=environment(RAY_TMPDIR=short),
                start_new_session=True,  # a group of its own: `ray stop` would end every cluster of the machine
            )
        try:
            yield Cluster(_address(temporary, head), temporary)
            assert head.poll() is None, (temporary / "head.log").read_text()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(head.pid, signal.SIGKILL)
            head.wait()


def _address(temporary: Path, head: subprocess.Popen[bytes]) -> str:
    """The address that the head node writes down once it takes drivers."""
    written = temporary / "ray" / "ray_current_cluster"
    deadline = time.monotonic() + START_SECONDS
    while not (written.is_file() and written.read_text().strip()):
        if head.poll() is not None or time.monotonic() > deadline:
            raise AssertionError((temporary / "head.log").read_text())
        time.sleep(0.2)
    return written.read_text().strip()


@pytest.fixture(scope="module")
def track(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("track") / "joined.toml"
    path.write_text(track_text(limit=4, crop=48, radii=[4], steps=4))
    return path


@pytest.fixture(scope="module")
def alone(track: Path) -> pd.DataFrame:
    """The board of one process."""
    run(track, track.parent / "alone", environment())
    return board(track.parent / "alone")


def run(track: Path, out: Path, env: Mapping[str, str], *options: str) -> int:
    """Run a track to its good end; returns the process id it had."""
    command = [sys.executable, "-m", "iqa_robust", "run", str(track), "--out", str(out), "--precision", "fp32"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env) as process:
        try:
            printed, _ = process.communicate(timeout=RUN_SECONDS)
        finally:
            process.kill()
    assert process.returncode == 0, printed.decode()
    return process.pid


@pytest.mark.parametrize("named", ["--ray-address host:port", "--ray-address auto", "RAY_ADDRESS"])
def test_a_cluster_that_runs_is_joined_and_left(
    cluster: Cluster, track: Path, alone: pd.DataFrame, tmp_path: Path, named: str
) -> None:
    options, env = ["--executor", "ray", "--workers", "2"], environment(RAY_TMPDIR=str(cluster.temporary))
    if named == "RAY_ADDRESS":
        env["RAY_ADDRESS"] = cluster.address
    else:
        options += named.replace("host:port", cluster.address).split()
    driver = run(track, tmp_path / "out", env, *options)
    pd.testing.assert_frame_equal(board(tmp_path / "out"), alone, check_exact=True)
    assert cluster.joined_by(driver)
    assert len(cluster.sessions()) == 1, "a second cluster was started"
    command = [sys.executable, "-c", LEFT, cluster.address]
    asked = subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS, env=env)
    assert asked.stdout == "1 2.0\n", asked.stderr


def test_without_an_address_it_is_left_alone(
    cluster: Cluster, track: Path, alone: pd.DataFrame, tmp_path: Path
) -> None:
    # Also the proof that the tests above would notice a second cluster.
    env = environment(RAY_TMPDIR=str(cluster.temporary))
    driver = run(track, tmp_path / "out", env, "--executor", "ray", "--workers", "1")
    pd.testing.assert_frame_equal(board(tmp_path / "out"), alone, check_exact=True)
    sessions = cluster.sessions()
    assert len(sessions) == 2
    assert [len(list((one / "logs").glob(f"python-core-driver-*_{driver}.log"))) for one in sorted(sessions)] == [0, 1]
