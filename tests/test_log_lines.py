"""Lines for people, and as objects for what collects them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from diet_ray import log_lines, progress, whereabouts

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """The package's logger is as before afterwards."""
    logger = progress.logger
    handlers, level, propagate = logger.handlers[:], logger.level, logger.propagate
    with whereabouts.at(run=None, stage=None, round=None, step=None):
        yield
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(level)


@pytest.fixture
def json_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(log_lines.VARIABLE, "json")


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_line_is_for_people_unless_said_otherwise(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for form in (None, "", "text"):
        if form is None:
            monkeypatch.delenv(log_lines.VARIABLE, raising=False)
        else:
            monkeypatch.setenv(log_lines.VARIABLE, form)
        progress.start_logging()
        progress.logger.info("%d rows", 3)
        log_lines.say("error: a.csv: row 3")
        printed = capsys.readouterr()
        time, _, message = printed.out.rstrip("\n").partition(" ")
        assert datetime.strptime(time, "%H:%M:%S")
        assert message == "3 rows"
        assert printed.err == "error: a.csv: row 3\n"


def test_every_line_is_an_object(json_lines: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Also one of several lines; with what is known of where it was written, and no more."""
    progress.start_logging()
    progress.logger.info("before")
    with whereabouts.at(run="mine", stage=2, round=0, step=7):
        progress.logger.warning("a table:\n%s", "ä | 1")
        log_lines.say("error: over")
    printed = capsys.readouterr()
    before, table = objects(printed.out)
    (last,) = objects(printed.err)
    for told in (before, table, last):
        assert datetime.fromisoformat(told.pop("time")).utcoffset() is not None
    where = {"run": "mine", "stage": 2, "round": 0, "step": 7}
    assert before == {"level": "info", "message": "before"}
    assert table == {"level": "warning", "message": "a table:\nä | 1", **where}
    assert last == {"level": "error", "message": "error: over", **where}


def test_a_logged_exception_is_within_its_object(
    json_lines: None, capsys: pytest.CaptureFixture[str]
) -> None:
    progress.start_logging()
    try:
        raise ValueError("half way")
    except ValueError:
        progress.logger.exception("failed")
    (told,) = objects(capsys.readouterr().out)
    assert told["message"] == "failed"
    assert told["exception"].startswith("Traceback")
    assert told["exception"].endswith("ValueError: half way")


def test_a_terminal_gets_no_bar_between_objects(
    json_lines: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    progress.start_logging()
    with progress.phase("scoring", total=4) as phase:
        phase.advance(4)
    printed = objects(capsys.readouterr().out)
    assert [told["message"].partition(":")[0] for told in printed] == ["scoring", "scoring"]


def test_an_error_that_nobody_handles_is_one_object() -> None:
    code = (
        "from diet_ray import log_lines, whereabouts\n"
        "log_lines.tell_exceptions()\n"
        "whereabouts.enter(run='mine')\n"
        "1 / 0"
    )
    environment = {**os.environ, log_lines.VARIABLE: "json", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 1
    (told,) = objects(done.stderr)
    assert (told["level"], told["run"]) == ("critical", "mine")
    assert told["message"] == "ZeroDivisionError: division by zero"
    assert "Traceback" in told["exception"]


def test_an_unknown_form_is_told_of(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(log_lines.VARIABLE, "jsn")
    progress.start_logging()
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith("DIET_RAY_LOG=jsn: not known, lines are text; set it to text or json")
