"""Jobs that are told to stop: real signals to real processes, with Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from diet_ray.running import lease, stopping
from tests.ports import HOST, free_port

ROOT = Path(__file__).parents[2]


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """A temporary folder of Ray's own, with a short name as its sockets need, in which a note
    names a cluster that is gone."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        note = Path(folder) / "ray" / "ray_current_cluster"
        note.parent.mkdir()
        note.write_text(f"{HOST}:{free_port()}")
        yield Path(folder)


@pytest.mark.parametrize(
    ("number", "how", "status"),
    [(signal.SIGTERM, "get", 143), (signal.SIGINT, "wait", 130)],
)
def test_a_job_that_is_told_to_stop_says_so_and_ends(
    tmp_path: Path, ray_folder: Path, number: signal.Signals, how: str, status: int
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_TMPDIR": str(ray_folder)}
    environment["RAY_AUTH_MODE"] = "disabled"  # it warns where it is on
    environment.pop("RAY_ADDRESS", None)
    job = subprocess.Popen(
        [sys.executable, str(ROOT / "tests/running/stopped_job.py"), str(tmp_path), how],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert job.stdout is not None
    try:
        lines = list(iter(job.stdout.readline, "working\n"))
        assert job.poll() is None, job.communicate()[1]
        assert "that does not answer" in "".join(lines), "Ray's note of a cluster that is gone"
        assert (tmp_path / lease.FILE).exists()
        job.send_signal(number)
        _, told = job.communicate(timeout=100)
    finally:
        job.kill()
    assert job.returncode == status
    said = "started again, the run goes on from its last state"
    assert told == f"stopping ({number.name}): {said}\n"
    assert not (tmp_path / lease.FILE).exists()


STUCK = """
import time
from diet_ray.running import stopping

stopping.GRACE_SECONDS = 1
with stopping.stoppable():
    print("working", flush=True)
    while True:
        try:
            time.sleep(100)
        except KeyboardInterrupt:
            pass
"""


def test_a_job_that_does_not_leave_ends_all_the_same() -> None:
    command = [sys.executable, "-c", STUCK]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == "working\n"
        job.terminate()
        assert job.wait(60) == 143


def test_what_is_started_to_ignore_ctrl_c_does() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    terminate = signal.getsignal(signal.SIGTERM)  # Ray's, where a test before has used it
    try:
        with stopping.stoppable():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not terminate
    finally:
        signal.signal(signal.SIGINT, before)
    assert signal.getsignal(signal.SIGTERM) is terminate


def test_a_signal_that_another_handler_takes_ends_the_job_all_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As Ray Train's for Ctrl-C, which ends with status 0."""
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as ended, stopping.stoppable():  # noqa: PT012
        signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
        signal.raise_signal(signal.SIGINT)
    assert ended.value.code == 130
    assert capsys.readouterr().err.count("stopping (SIGINT)") == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_other_signals_are_let_through() -> None:
    got: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: got.append(number))
    try:
        with stopping.stoppable():
            signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert got == [signal.SIGUSR1]
