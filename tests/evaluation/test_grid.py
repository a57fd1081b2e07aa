"""A grid of cells resumes: what is finished and still holds is not run again."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from diet_ray import progress, storage
from diet_ray.evaluation import grid as grid_module
from diet_ray.evaluation.cells import (
    Cell,
    CellResult,
    read_logits,
    read_validation_logits,
)
from diet_ray.evaluation.grid import _Data, run_grid
from diet_ray.evaluation.run import Run
from diet_ray.memory.files import ArtifactError
from diet_ray.memory.rows import SyntheticRows
from diet_ray.storage import StorageError
from diet_ray.training.metrics import LOSS_OF_ONE_HALF
from tests.evaluation.prepared import Prepared, made_cell, publish_distilled, run_here
from tests.made import small_config

pytestmark = pytest.mark.usefixtures("ray_session")


def cells_of(run: Run) -> list[Cell]:
    return [made_cell(run, method, seed) for method in ("warm", "distilled") for seed in (0, 1)]


def times(cells: list[Cell]) -> dict[str, int]:
    """Key to the time of change of a cell's result."""
    paths = {cell.key: Path(cell.uri()) for cell in cells}
    return {key: path.stat().st_mtime_ns for key, path in paths.items() if path.exists()}


def never(*_: object) -> None:
    raise AssertionError("a finished cell was run again")


def timeless(result: CellResult) -> CellResult:
    return replace(result, seconds=0)


def test_finished_cells_are_not_run_again(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = cells_of(prepared.run())
    first = run_grid(cells, "Test")
    before = times(cells)
    assert len(before) == len(cells)
    elsewhere = prepared.copy(prepared.folder.parent / "elsewhere").run()
    assert [timeless(run_here(cell)) for cell in cells_of(elsewhere)] == [
        timeless(result) for result in first
    ]

    lost = cells[1]
    Path(lost.uri()).unlink()
    assert [timeless(result) for result in run_grid(cells, "Test")] == [*map(timeless, first)]
    again = times(cells)
    assert {key for key in before if again[key] != before[key]} == {lost.key}

    publish_distilled(prepared.distilled, prepared.blocks, prepared.reference, first=9)
    renewed = cells_of(prepared.run())
    other = run_grid(renewed, "Test")
    assert times(cells) == again
    assert [new.key == old.key for new, old in zip(renewed, cells, strict=True)] == [True] * 2 + [
        False
    ] * 2
    assert all(a != b for a, b in zip(other[2:], first[2:], strict=True))

    monkeypatch.setattr(grid_module, "run_cell", never)
    assert run_grid(list(reversed(renewed)), "Test") == list(reversed(other))


def test_what_two_studies_ask_for_is_trained_once(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cells of two equal runs, as a study that differs in nothing makes them."""
    trained = prepared.folder / "trained"
    trained.mkdir()
    run_cell = grid_module.run_cell

    def counted(cell: Cell, *data: Any) -> CellResult:
        (trained / f"{cell.key}-{ray.get_runtime_context().get_task_id()}").touch()
        return run_cell(cell, *data)

    monkeypatch.setattr(grid_module, "run_cell", counted)
    one, two = prepared.run(), prepared.run(name="other", evaluation={"seeds": 4})
    asked = [made_cell(run, method) for run in (one, two) for method in ("warm", "cold")]
    results = run_grid(asked, "Test")
    assert results[:2] == results[2:]
    counts = Counter(path.name.partition("-")[0] for path in trained.iterdir())
    assert counts == dict.fromkeys((cell.key for cell in asked), 1)


def test_cells_with_the_same_rows_share_them(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[Any, ...]] = []

    def noted(*arguments: Any) -> SyntheticRows:
        raise NotImplementedError

    class Task:
        def options(self, **options: Any) -> Task:
            self._options = options
            return self

        def remote(self, run: Run, *arguments: Any) -> ray.ObjectRef:
            made.append((*arguments, self._options["num_cpus"]))
            return ray.put(arguments)

    monkeypatch.setattr(grid_module, "reduced_rows", noted)
    monkeypatch.setattr(ray, "remote", lambda function: Task())
    run = prepared.run()
    first, second = run.config.evaluation.candidates
    other = replace(run, variant="ablation")
    data = _Data()
    found = {
        (name, method, seed, candidate.name): data.of(
            made_cell(of, method, seed, candidate=candidate)
        )
        for name, of in (("base", run), ("other", other))
        for method in ("warm", "random", "el2n", "distilled")
        for seed in (0, 1)
        for candidate in (first, second)
    }
    assert len({shared for shared, _ in found.values()}) == 1, "one phi_T, one copy"
    assert all((rows is None) == (key[1] == "warm") for key, (_, rows) in found.items())
    once = [("el2n", "soft", 0, 0), ("distilled", "soft", 0, 1)]
    assert Counter(made) == Counter(
        2 * [("random", "soft", 0, 1), ("random", "soft", 1, 1), *once]
    ), "per run; those of EL2N and of the distilled set are every seed's"


@pytest.mark.slow
def test_el2n_needs_no_cpu_that_its_own_scan_could_want(prepared: Prepared) -> None:
    """As many selections at once as there are CPUs."""
    run = prepared.run(resources={"evaluation_tasks": 4})
    cells = [made_cell(run, "el2n", seed, labels) for labels in ("soft", "hard") for seed in (0, 1)]  # type: ignore[arg-type]
    results = run_grid(cells, "Test")
    assert len({result.test["auc"] for result in results}) == 4
    elsewhere = prepared.copy(prepared.folder.parent / "elsewhere").run()
    expected = run_here(made_cell(elsewhere, "el2n", 1, "hard"))
    assert timeless(results[-1]) == timeless(expected)


def test_a_users_error_in_a_cell_stays_what_it_is(prepared: Prepared) -> None:
    fragment = prepared.blocks.block("subsequent").fragments[0]
    blocks = prepared.folder / "blocks"
    for file in Path(prepared.blocks.uri).rglob("*.parquet"):
        copied = blocks / file.relative_to(prepared.blocks.uri)
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.write_bytes(file.read_bytes())
    path = blocks / fragment.path
    path.write_bytes(path.read_bytes()[:-300])
    run = replace(prepared.run(), blocks=replace(prepared.blocks, uri=str(blocks)))
    with pytest.raises(StorageError, match=r"subsequent/fragment-00000\.parquet"):
        run_grid([made_cell(run, "warm")], "Test")


@pytest.mark.parametrize("wider", [True, False])
def test_a_distilled_set_of_another_shape_is_refused_before_any_training(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch, wider: bool
) -> None:
    monkeypatch.setattr(grid_module, "run_cell", never)
    run = prepared.run()
    if wider:
        config = small_config(run.config.output, models={"embedding_dim": 8})
        run = replace(run, config=config)
        shapes = r"3 fields of width 4, .* take 3 fields of width 8; set .*models\.embedding_dim"
    else:
        run = replace(run, blocks=replace(run.blocks, fields=run.blocks.fields[:2]))
        shapes = r"3 fields of width 4, .* take 2 fields of width 4; set logs\.fields"
    with pytest.raises(ArtifactError, match=rf"distilled/stage=2: .*{shapes}"):
        run_grid(cells_of(run), "Test")


def test_no_cells_no_results() -> None:
    assert run_grid([], "Test") == []


def test_a_candidate_that_diverges_is_a_result(
    prepared: Prepared, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a model that answers one half to every row; those beside it are judged as ever."""
    run = prepared.run()
    good = made_cell(run, "warm", 7)
    bad = replace(good, protocol=good.protocol.model_copy(update={"learning_rate": 1e9}))
    with caplog.at_level("WARNING", logger=progress.logger.name):
        sane, diverged = run_grid([good, bad], "Test")
    assert "method warm, seed 7: its training diverged" in caplog.text
    assert (sane.diverged, diverged.diverged) == (False, True)
    for found in (diverged.test, diverged.validation):
        assert found["auc"] == 0.5
        assert found["logloss"] == pytest.approx(LOSS_OF_ONE_HALF)
    assert np.isfinite(diverged.training_loss).all()
    assert (read_logits(bad) == 0).all()
    assert (read_validation_logits(bad) == 0).all()
    json.loads(storage.read_bytes(bad.uri()), parse_constant=never)  # NaN is not JSON
