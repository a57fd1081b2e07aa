"""The driver's peak is measured with many and with few synthetic rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from diet_ray.bench.memory import STEP_PARTS, Driver, OuterStep


@pytest.mark.slow
def test_a_drivers_peak_is_measured(tmp_path: Path) -> None:
    measure = Driver(rows=6_000, many=600, few=60)
    (figure,) = measure.run(str(tmp_path)).figures
    assert figure.parts["many MB"] > 10
    ratio = figure.parts["many MB"] / figure.parts["few MB"]
    assert figure.value == pytest.approx(ratio)


def test_more_synthetic_rows_need_more() -> None:
    assert Driver(many=3_000_000).needs().memory > Driver().needs().memory


@pytest.mark.slow
def test_a_steps_pull_and_push_are_measured(tmp_path: Path) -> None:
    measure = OuterStep(many=400, few=100, rows=40, servers=1, repeats=2)
    figures = measure.run(str(tmp_path)).figures
    assert [figure.compared.split(" of ")[0] for figure in figures] == list(STEP_PARTS)
    for figure in figures:
        assert figure.parts["many s"] > 0
        assert figure.parts["few s"] > 0
