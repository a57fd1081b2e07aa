"""What every job does around its work."""

from __future__ import annotations

import socket
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from diet_ray import runtime
from diet_ray.config import Command, ConfigError, parse_command_line
from diet_ray.runtime import ClusterError

QUICKSTART = str(Path(__file__).parents[1] / "configs/quickstart.yaml")


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done, in its order; Ray is not started."""
    found: list[str] = []

    def noted(name: str) -> Any:
        found.append(name)
        return nullcontext()

    monkeypatch.setattr(runtime, "connect", partial(noted, "connect"))
    monkeypatch.setattr(runtime.lease, "held", lambda _: noted("lease"))
    monkeypatch.setattr(runtime.progress, "start_logging", lambda: None)
    return found


def command(*arguments: str) -> Command:
    given = ["--config", QUICKSTART, *arguments]
    return parse_command_line("", arguments=given, quick=["search.trials=2"])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["check", "lease", "connect", "plan", "job"]),
        (["--dry-run"], ["check", "connect", "plan"]),
    ],
)
def test_a_job_is_checked_then_planned_then_done(
    done: list[str], arguments: list[str], expected: list[str]
) -> None:
    steps = {name: lambda _, name=name: done.append(name) for name in ("job", "check", "plan")}
    runtime.run_job(steps["job"], command(*arguments), steps["check"], steps["plan"])
    assert done == expected


def test_a_users_error_ends_a_job_with_its_message_and_the_line_of_its_key(
    done: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: object) -> None:
        raise ConfigError("search.space.dcn.num_cross_layers: too many")

    with pytest.raises(SystemExit) as ended:
        runtime.run_job(done.append, command(), check=refuse)
    assert ended.value.code == 2
    assert done == []
    text = Path(QUICKSTART).read_text()
    line = text[: text.index("num_cross_layers: ")].count("\n") + 1
    told = capsys.readouterr().err
    assert told == f"error: {QUICKSTART}:{line}: search.space.dcn.num_cross_layers: too many\n"


@pytest.fixture
def note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ray's note of the cluster that was started last on this machine; not there yet."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    return tmp_path / "ray" / "ray_current_cluster"


def test_a_cluster_that_answers_is_joined(
    note: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert runtime._address() is None
    with socket.create_server(("127.0.0.1", 0)) as head:
        note.write_text(f"127.0.0.1:{head.getsockname()[1]}")
        assert runtime._address() is None
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{head.getsockname()[1]}")
        assert runtime._address() is None
    for named in ("local", "auto", "ray://elsewhere:10001"):
        monkeypatch.setenv("RAY_ADDRESS", named)
        assert runtime._address() is None
    assert caplog.text == ""


def test_a_named_cluster_that_does_not_answer_yet_is_waited_for_aloud(
    note: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as head:
        named = f"127.0.0.1:{head.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", named)
    assert runtime._address() is None
    assert f"RAY_ADDRESS={named}: nothing answers there" in caplog.text


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "[::1]:{port}", "", "damaged"])
def test_of_a_cluster_that_is_gone_a_note_is_no_address(
    note: Path, caplog: pytest.LogCaptureFixture, address: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as head:
        note.write_text(address.format(port=head.getsockname()[1]))
    assert runtime._address() == "local"
    assert f"{note} names a cluster at" in caplog.text
    assert "that does not answer" in caplog.text


def test_a_named_cluster_that_is_gone_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(**_: object) -> None:
        raise ConnectionError("Failed to connect to Ray cluster at head:6379")

    monkeypatch.setattr(runtime.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(runtime.ray, "init", unreachable)
    told = "Failed to connect to Ray cluster at head:6379; start that cluster, or set RAY_ADDRESS"
    with pytest.raises(ClusterError, match=told), runtime.connect():
        raise AssertionError("connected")


def test_any_other_error_keeps_its_traceback(done: list[str]) -> None:
    def fail(_: object) -> None:
        raise KeyError("a defect of ours")

    with pytest.raises(KeyError, match="a defect of ours"):
        runtime.run_job(fail, command())
