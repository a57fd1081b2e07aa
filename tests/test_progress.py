"""Progress: lines where there is no terminal, honest estimates, and words for sizes."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from diet_ray import progress, telemetry


class Clock:
    """Stands for the module `time`; moves when told."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """The package's logger is as before afterwards."""
    logger = progress.logger
    level, propagate = logger.level, logger.propagate
    progress.summary()
    yield
    progress.summary()
    for handler in logger.handlers[:]:
        if type(handler) is logging.StreamHandler:
            logger.removeHandler(handler)
    logger.setLevel(level)
    logger.propagate = propagate


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What was printed, without the time in front."""
    return [line.split(" ", 1)[1] for line in capsys.readouterr().out.splitlines()]


def test_a_line_now_and_then_where_there_is_no_terminal(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    progress.start_logging()
    with progress.phase("scoring", total=1_000_000) as phase:
        for _ in range(100):
            clock.now += 1.0
            phase.advance(10_000)
    shown = lines(capsys)
    assert shown[0] == "scoring: 1,000,000 rows"
    assert shown[1] == "scoring: 100,000 of 1,000,000 rows, about 1 min 30 s left"
    assert shown[-1] == "scoring: done in 1 min 40 s"
    assert len(shown) == 2 + 10


def test_neither_work_found_done_nor_a_slow_start_distorts_the_time_left(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    progress.start_logging()
    with progress.phase("scoring", total=100, unit="fragments") as phase:
        phase.skip(80)
        clock.now += 60.0
        phase.advance(1)
        clock.now += 10.0
        phase.advance(5)
    printed = lines(capsys)
    assert "scoring: 81 of 100 fragments" in printed
    assert "scoring: 86 of 100 fragments, about 28.0 s left" in printed


def test_a_phase_without_a_total_says_what_it_does(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    progress.start_logging()
    with progress.phase("publishing"):
        clock.now += 2.0
    assert lines(capsys) == ["publishing", "publishing: done in 2.0 s"]


def test_a_bar_in_a_terminal(
    clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    progress.logger.setLevel(logging.INFO)
    with progress.phase("scoring", total=4) as phase:
        phase.skip(1)
        clock.now += 60.0
        phase.advance(3)
    shown = capsys.readouterr().out
    assert "4/4" in shown
    assert "4 of 4" not in shown


def test_nothing_is_shown_until_the_logger_is_switched_on(
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In a program of somebody else's, also in a terminal."""
    caplog.set_level("WARNING", "diet_ray")  # as it is at first, whatever ran before
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    with progress.phase("scoring", total=4) as phase:
        phase.advance(4)
    assert capfd.readouterr() == ("", "")


def test_share_and_pace_are_metrics_until_the_phase_ends(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: dict[str, dict[str, float]] = {"done": {}, "rate": {}}
    for name, gauge in (("done", telemetry.PHASE_DONE), ("rate", telemetry.PHASE_RATE)):
        held = shown[name]
        monkeypatch.setattr(gauge, "set", lambda v, phase, held=held: held.update({phase: v}))
        monkeypatch.setattr(gauge, "forget", lambda phase, held=held: held.pop(phase, None))
    with progress.phase("Stage 2: scan of 2024-01-03 (el2n)", total=100) as phase:
        phase.skip(10)
        clock.now += 60.0  # a slow start is no part of the pace
        phase.advance(10)
        clock.now += 5.0
        phase.advance(20)
        label = "Stage #: scan of # (el2n)"
        assert shown == {"done": {label: 0.4}, "rate": {label: 4.0}}
        with progress.phase("publishing, which is not counted"):
            pass
        assert shown["done"].keys() == {label}
    assert shown == {"done": {}, "rate": {}}


def test_the_summary_lists_each_phase_once(clock: Clock) -> None:
    with progress.phase("one"):
        clock.now += 1.0
    with progress.phase("two"):
        clock.now += 2.0
    assert progress.summary() == [("one", 1.0), ("two", 2.0)]
    assert progress.summary() == []


def test_a_phase_that_failed_is_not_called_done(capsys: pytest.CaptureFixture[str]) -> None:
    progress.start_logging()
    with pytest.raises(ValueError, match="half way"), progress.phase("one"):
        raise ValueError("half way")
    assert lines(capsys) == ["one"]
    assert progress.summary() == []


def test_logging_twice_prints_once(capsys: pytest.CaptureFixture[str]) -> None:
    progress.start_logging()
    progress.start_logging()
    logging.getLogger("diet_ray.scoring").info("a room's line")
    assert lines(capsys) == ["a room's line"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0.0 s"),
        (8.1, "8.1 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3_599.7, "1 h 00 min"),
        (7_500, "2 h 05 min"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert progress.duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.0 kB"),
        (999_960, "1.0 MB"),
        (12_345_678, "12.3 MB"),
        (5e9, "5.0 GB"),
        (7.25e15, "7250.0 TB"),
    ],
)
def test_byte_sizes(count: float, words: str) -> None:
    assert progress.byte_size(count) == words
