"""The notebook-like example, as it stands."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

import diet_ray

EXAMPLE = Path(__file__).parents[2] / "examples" / "library.py"


@pytest.mark.usefixtures("ray_session")
def test_every_cell_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(diet_ray, "start_logging", lambda: None)  # it is for a whole process
    cells = runpy.run_path(str(EXAMPLE))
    searched, losses = cells["searched"], cells["losses"]
    assert len(searched.table) == 4
    assert searched.table["error"].isna().all()
    assert searched.uri == str(tmp_path / "results/library/sweep/search/leaderboard.json")
    assert searched.best.network.name in cells["space"]
    assert len(cells["dataset"]) == len(diet_ray.load_distilled(cells["distilled"].uri))
    assert losses[-1] < losses[0]
    assert "Loss by epoch:" in capsys.readouterr().out
