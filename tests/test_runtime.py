"""What every job does around its work."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from diet_ray import runtime
from diet_ray.config import Command, ConfigError, parse_command_line

QUICKSTART = str(Path(__file__).parents[1] / "configs/quickstart.yaml")


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done, in its order; Ray is not started."""
    found: list[str] = []

    def connect() -> Any:
        found.append("connect")
        return nullcontext()

    monkeypatch.setattr(runtime, "connect", connect)
    monkeypatch.setattr(runtime.progress, "start_logging", lambda: None)
    return found


def command(*arguments: str) -> Command:
    given = ["--config", QUICKSTART, *arguments]
    return parse_command_line("", arguments=given, quick=["search.trials=2"])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [([], ["check", "connect", "plan", "job"]), (["--dry-run"], ["check", "connect", "plan"])],
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


def test_any_other_error_keeps_its_traceback(done: list[str]) -> None:
    def fail(_: object) -> None:
        raise KeyError("a defect of ours")

    with pytest.raises(KeyError, match="a defect of ours"):
        runtime.run_job(fail, command())
