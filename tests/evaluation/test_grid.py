"""A grid of cells resumes: what is finished and still holds is not run again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from diet_ray.evaluation import grid as grid_module
from diet_ray.evaluation.cells import Cell
from diet_ray.evaluation.grid import run_grid
from diet_ray.memory.artifact import ArtifactError
from diet_ray.storage import StorageError
from tests.evaluation.prepared import Prepared, publish_distilled
from tests.made import small_config

pytestmark = pytest.mark.usefixtures("ray_session")

CELLS = [Cell(method, "dcn", seed) for method in ("warm", "distilled") for seed in (0, 1)]


def times(prepared: Prepared) -> dict[Cell, int]:
    paths = {cell: Path(cell.uri(prepared.config)) for cell in CELLS}
    return {cell: path.stat().st_mtime_ns for cell, path in paths.items() if path.exists()}


def run(prepared: Prepared) -> dict[Cell, object]:
    return dict(run_grid(prepared.config, prepared.blocks, prepared.distilled, CELLS))


def never(*_: object) -> None:
    raise AssertionError("a finished cell was run again")


def test_finished_cells_are_not_run_again(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(prepared)
    assert list(first) == CELLS
    before = times(prepared)
    assert set(before) == set(CELLS)

    lost = CELLS[1]
    Path(lost.uri(prepared.config)).unlink()
    assert run(prepared) == first
    again = times(prepared)
    assert {cell for cell in CELLS if again[cell] != before[cell]} == {lost}

    publish_distilled(prepared.distilled, prepared.blocks, prepared.reference, first=9)
    other = run(prepared)
    recomputed = {cell for cell in CELLS if times(prepared)[cell] != again[cell]}
    assert recomputed == {cell for cell in CELLS if cell.method == "distilled"}
    assert all((other[cell] == first[cell]) == (cell not in recomputed) for cell in CELLS)

    monkeypatch.setattr(grid_module, "run_cell", never)
    assert run(prepared) == other


def test_a_users_error_in_a_cell_stays_what_it_is(prepared: Prepared) -> None:
    fragment = prepared.blocks.block("subsequent").fragments[0]
    path = Path(prepared.blocks.uri, fragment.path)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(StorageError, match=r"subsequent/fragment-00000\.parquet"):
        run_grid(prepared.config, prepared.blocks, prepared.distilled, CELLS[:1])


@pytest.mark.parametrize("wider", [True, False])
def test_a_distilled_set_of_another_shape_is_refused_before_any_training(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch, wider: bool
) -> None:
    monkeypatch.setattr(grid_module, "run_cell", never)
    config, blocks = prepared.config, prepared.blocks
    if wider:
        config = small_config(config.output, models={"embedding_dim": 8})
        shapes = r"3 fields of width 4, .* take 3 fields of width 8; set .*models\.embedding_dim"
    else:
        blocks = replace(blocks, fields=blocks.fields[:2])
        shapes = r"3 fields of width 4, .* take 2 fields of width 4; set logs\.fields"
    with pytest.raises(ArtifactError, match=f"{prepared.distilled}: .*{shapes}"):
        run_grid(config, blocks, prepared.distilled, CELLS)
