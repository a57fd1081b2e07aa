"""The fraction of the bound is that of the longer of two times."""

from __future__ import annotations

import pytest

from diet_ray.bench.roofline import Phase, Roofline, line


def test_the_longer_time_is_the_bound() -> None:
    phase = Phase("made", bytes_per_row=100, flop_per_row=3_000, rows=10, call=lambda: None)
    by_flop = line(phase, seconds=6.0, copied=1_000, multiplied=10_000)  # 1 s, 3 s
    assert by_flop["Bound by"] == "FLOP"
    assert by_flop["Fraction"] == pytest.approx(0.5)
    assert by_flop["Rows/s at most"] == pytest.approx(10 / 3)
    by_bytes = line(phase, seconds=4.0, copied=500, multiplied=100_000)  # 2 s, 0.3 s
    assert by_bytes["Bound by"] == "bytes"
    assert by_bytes["Fraction"] == pytest.approx(0.5)


def test_every_phase_has_a_line() -> None:
    found = Roofline(batch_rows=32, window=2, ids=700, repeats=1).run("")
    (rows,) = found.tables.values()
    assert [row["Phase"] for row in rows] == ["scan", "alignment", "reference", "meta-gradient"]
    assert all(figure.value > 0 for figure in found.figures)
    assert "GFLOP/s" in found.notes[0]
