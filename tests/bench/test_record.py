"""Records survive their file, and the page says what was reached, missed, and how to repeat it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from diet_ray.bench.measure import Figure, Found, Goal, Measure, Needs, size
from diet_ray.bench.record import command_of, machine, read_records, save, write_page


@dataclass(frozen=True)
class Made(Measure):
    name: ClassVar[str] = "made"
    batch_rows: int = size(64, "rows")
    repeats: int = size(3, "times")

    def needs(self) -> Needs:
        return Needs(0)

    def run(self, folder: str) -> Found:
        raise AssertionError("not run here")


@dataclass(frozen=True)
class Other(Made):
    name: ClassVar[str] = "other"


FOUND = Found(
    figures=[
        Figure("fast / slow", 2.5, Goal(low=1.8), parts={"fast s": 2.0, "slow s": 5.0}),
        Figure("large / small", 1.5, Goal(high=1.2)),
        Figure("rows", 12_000.0, unit="rows/s"),
    ],
    tables={"Phases": [{"Phase": "scan", "Seconds": 1234.5678}]},
    notes=["A sentence about it."],
)


def test_a_command_names_what_is_not_the_default() -> None:
    assert command_of(Made()) == "python jobs/bench.py made"
    assert command_of(Made(batch_rows=8)) == "python jobs/bench.py made --batch-rows 8"


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    save(str(tmp_path), Made(batch_rows=8), FOUND, seconds=4)
    record = read_records(str(tmp_path))["made"]
    assert record.found == FOUND
    assert record.sizes == {"batch_rows": 8, "repeats": 3}
    assert record.machine == machine()


def test_the_page_marks_what_was_missed(tmp_path: Path) -> None:
    output, page = str(tmp_path / "records"), tmp_path / "BENCH.md"
    save(output, Other(), FOUND, seconds=4)
    save(output, Made(batch_rows=8), FOUND, seconds=4)
    write_page(output, str(page), order=["other", "made"])
    lines = page.read_text().splitlines()
    fast, large, rows = [line for line in lines if "`python jobs/bench.py other`" in line]
    assert "≥ 1.8" in fast
    assert "2.5, met" in fast
    assert "fast s 2, slow s 5" in fast
    assert "1.5, **missed**" in large
    assert "12,000 rows/s" in rows
    assert machine() in page.read_text()
    assert [line for line in lines if line.startswith("## ")] == ["## other", "## made"]
    assert any("scan" in line and "1,235" in line for line in lines)


def test_an_empty_folder_makes_a_page(tmp_path: Path) -> None:
    write_page(str(tmp_path / "none"), str(tmp_path / "BENCH.md"), order=[])
    assert (tmp_path / "BENCH.md").read_text().startswith("# What it costs")
