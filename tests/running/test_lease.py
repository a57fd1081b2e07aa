"""One driver at a time, shown with processes that live, stall and die."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from diet_ray import storage
from diet_ray.errors import UserError
from diet_ray.running import lease
from diet_ray.running.lease import Holder, LeaseError, held

ROOT = Path(__file__).parents[2]
HEARTBEAT, STALE = 0.1, 1.5
NEVER = 1e6
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", HEARTBEAT)
    monkeypatch.setattr(lease, "STALE_SECONDS", STALE)
    monkeypatch.setattr(lease, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(storage, "SETTLE_SECONDS", 0.05)


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a process that holds a folder, and waits until it does."""
    started: list[subprocess.Popen[str]] = []

    def start(folder: object, heartbeat: float = HEARTBEAT) -> subprocess.Popen[str]:
        arguments = [str(value) for value in (folder, heartbeat, STALE, 100)]
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests/running/lease_holder.py"), *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def put(folder: object, **changes: Any) -> Holder:
    """A lease of somebody else."""
    holder = replace(Holder.this_process(), **changes)
    storage.write_bytes(storage.join(str(folder), lease.FILE), holder.as_bytes())
    return holder


def test_the_second_driver_is_refused_and_the_first_named(tmp_path: Path, start: Start) -> None:
    first = start(tmp_path)
    told = rf"{tmp_path}: another driver writes here: process {first.pid} on "
    told += rf"{socket.gethostname()}, since .*, last heartbeat .*; wait until it ends, stop it, or"
    with pytest.raises(LeaseError, match=told), held(str(tmp_path)):
        raise AssertionError("two hold it")
    assert first.poll() is None
    assert issubclass(LeaseError, UserError)


@pytest.mark.usefixtures("s3_endpoint")
def test_the_second_driver_is_refused_on_s3(s3_folder: str, start: Start) -> None:
    first = start(s3_folder)
    with pytest.raises(LeaseError, match=f"process {first.pid} on"), held(s3_folder):
        raise AssertionError("two hold it")
    first.kill()
    first.wait()
    with held(s3_folder):
        pass
    assert not storage.exists(storage.join(s3_folder, lease.FILE))


def test_a_killed_drivers_folder_is_taken_at_once(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Even while its parent has not asked for its status."""
    monkeypatch.setattr(lease, "STALE_SECONDS", NEVER)
    first = start(tmp_path)
    os.kill(first.pid, signal.SIGKILL)
    os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)
    with held(str(tmp_path)):
        assert f"taken over from process {first.pid} on" in caplog.text
        assert "which has ended" in caplog.text


def test_a_later_process_with_the_holders_number_is_not_the_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "STALE_SECONDS", NEVER)
    put(tmp_path, process_started="1")
    with held(str(tmp_path)):
        pass


def test_a_driver_that_stalled_finds_its_lease_taken_and_stops(
    tmp_path: Path, start: Start
) -> None:
    first = start(tmp_path)
    os.kill(first.pid, signal.SIGSTOP)
    began = time.monotonic()
    with held(str(tmp_path)):
        assert time.monotonic() - began > STALE
        os.kill(first.pid, signal.SIGCONT)
        _, told = first.communicate(timeout=30)
    assert first.returncode == 2
    assert f"taken over by another driver while this one stalled: process {os.getpid()} on" in told
    assert "Traceback" not in told


def test_the_one_that_stops_leaves_the_others_lease(tmp_path: Path) -> None:
    taken = pytest.raises(LeaseError, match="taken over by another driver")
    with taken, held(str(tmp_path)):
        other = put(tmp_path)
        time.sleep(30)
    assert storage.read_bytes(str(tmp_path / lease.FILE)) == other.as_bytes()


def test_elsewhere_than_in_the_main_thread_a_loss_is_told_at_the_end(tmp_path: Path) -> None:
    told: list[str] = []

    def work() -> None:
        try:
            with held(str(tmp_path)):
                put(tmp_path)
                time.sleep(10 * HEARTBEAT)
                told.append("worked on")
        except LeaseError as error:
            told.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert told[0] == "worked on"
    assert "taken over by another driver" in told[1]


@pytest.mark.parametrize("changes", [{"machine": "another"}, {"machine": None}])
def test_a_silent_driver_of_another_machine_is_given_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, changes: dict[str, Any]
) -> None:
    put(tmp_path, host="elsewhere", process_started="1", job="raysubmit_1", **changes)
    began = time.monotonic()
    with held(str(tmp_path)):
        assert time.monotonic() - began > STALE
    assert "on elsewhere (job raysubmit_1), since" in caplog.text
    assert f"silent for {STALE:g} s" in caplog.text


def test_a_driver_of_another_machine_that_beats_is_left_alone(tmp_path: Path) -> None:
    holder = put(tmp_path, host="elsewhere", machine="another")
    beat = threading.Timer(3 * HEARTBEAT, put, [tmp_path], {**vars(holder), "beats": 1})
    beat.start()
    with pytest.raises(LeaseError, match="on elsewhere, since"), held(str(tmp_path)):
        raise AssertionError("two hold it")
    beat.join()


@pytest.mark.parametrize("content", [b"", b"[]", b'{"token": 1}'])
def test_a_damaged_lease_is_taken_over_in_time(tmp_path: Path, content: bytes) -> None:
    (tmp_path / lease.FILE).write_bytes(content)
    began = time.monotonic()
    with held(str(tmp_path)):
        assert time.monotonic() - began > STALE
    assert not (tmp_path / lease.FILE).exists()


def test_one_process_holds_it_again_and_again(tmp_path: Path) -> None:
    before = signal.getsignal(lease.LOSS_SIGNAL)
    for _ in range(3):
        with held(str(tmp_path)):
            assert Holder.read((tmp_path / lease.FILE).read_bytes())
        with suppress(KeyboardInterrupt), held(str(tmp_path)):
            raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(lease.LOSS_SIGNAL) is before


def test_a_store_that_is_gone_for_a_while_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with held(str(tmp_path)):
        with monkeypatch.context() as gone:
            gone.setattr(storage, "read_bytes", unreachable)
            time.sleep(4 * HEARTBEAT)
        time.sleep(4 * HEARTBEAT)
        holder = Holder.read((tmp_path / lease.FILE).read_bytes())
    assert holder is not None
    assert holder.beats > 0
    assert "no heartbeat written (gone)" in caplog.text


def unreachable(_uri: str) -> bytes:
    raise OSError("gone")


def test_a_submitted_job_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    told = '{"runtime_env": {}, "metadata": {"job_submission_id": "raysubmit_7"}}'
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", told)
    assert Holder.this_process().job == "raysubmit_7"
    assert "(job raysubmit_7)" in str(Holder.this_process())
