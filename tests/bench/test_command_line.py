"""The command line: sizes as options, records and page written, refusals told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from diet_ray.bench import command_line
from diet_ray.bench.catalogue import MEASURES
from diet_ray.bench.measure import Figure, Found, Measure, Needs, size
from diet_ray.bench.record import read_records


@dataclass(frozen=True)
class Made(Measure):
    """A made measure.

    What it does, at length.
    """

    name: ClassVar[str] = "made"
    batch_rows: int = size(64, "rows of a batch")

    def needs(self) -> Needs:
        return Needs(memory=1e18 if self.batch_rows > 1_000 else 0)

    def run(self, folder: str) -> Found:
        (Path(folder) / "in between").touch()
        return Found([Figure("rows", self.batch_rows)])


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Options that keep all in a folder of the test's; `made` is the only measure."""
    monkeypatch.setenv("RAY_worker_niceness", "0")
    monkeypatch.setattr(command_line.progress, "start_logging", lambda: None)  # for a whole process
    for name in list(MEASURES):
        monkeypatch.delitem(MEASURES, name)
    monkeypatch.setitem(MEASURES, "made", Made)
    (tmp_path / "between").mkdir()
    told = {"output": "records", "page": "BENCH.md", "folder": "between"}
    return [text for name, place in told.items() for text in (f"--{name}", str(tmp_path / place))]


def test_a_measure_leaves_a_record_and_the_page(places: list[str], tmp_path: Path) -> None:
    command_line.run("help", ["made", "--batch-rows", "8", *places])
    assert read_records(str(tmp_path / "records"))["made"].found.figures == [Figure("rows", 8)]
    assert "python jobs/bench.py made --batch-rows 8" in (tmp_path / "BENCH.md").read_text()
    assert list((tmp_path / "between").iterdir()) == []


def test_all_takes_the_defaults_and_page_makes_the_page_again(
    places: list[str], tmp_path: Path
) -> None:
    command_line.run("help", ["all", *places])
    (tmp_path / "BENCH.md").unlink()
    command_line.run("help", ["page", *places])
    assert "| 64 " in (tmp_path / "BENCH.md").read_text()


def test_too_large_a_measure_ends_with_the_amount(
    places: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        command_line.run("help", ["made", "--batch-rows", "2000", *places])
    assert ended.value.code == 2
    assert "made: needs 1000000.0 TB of memory" in capsys.readouterr().err


def test_help_tells_the_sizes(places: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command_line.run("help", ["made", "--help"])
    told = capsys.readouterr().out
    assert "What it does, at length." in told
    assert "rows of a batch (default 64)" in told


def test_a_size_is_positive(places: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command_line.run("help", ["made", "--batch-rows", "0"])
    assert "0 is not positive" in capsys.readouterr().err
