"""The tidy table, cell by cell."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from diet_ray.config import ProtocolConfig
from diet_ray.evaluation import results as tidy
from diet_ray.evaluation import tables
from diet_ray.evaluation.cells import Cell, CellResult, read_logits, read_validation_logits
from diet_ray.evaluation.studies import StudyCell
from diet_ray.logs.blocks import read_block
from diet_ray.training.metrics import taught_auc
from diet_ray.training.model import predict
from diet_ray.training.reference import load_reference, reference_uri
from tests.evaluation.prepared import RATIO, Prepared, made_cell, made_result, run_here

TASKS = ("task_0", "task_1")


def row_of(cell: Cell, result: CellResult) -> dict[str, object]:
    (row,) = tidy.frame([StudyCell("main", cell, "an arm", 1)], [result]).to_dict("records")
    return {str(name): value for name, value in row.items()}


def test_a_row_tells_cell_and_result(prepared: Prepared) -> None:
    run = replace(prepared.run(), variant="no-fusion")
    wukong = run.config.evaluation.candidates[1].model_copy(update={"label": "small"})
    cell = made_cell(run, "distilled", 3, "hard", wukong)
    curve = [0.9, 0.8, 0.7, 0.6, 0.5, 0.5, 0.3]
    made = made_result(0.7, 0.6, TASKS)
    row = row_of(cell, replace(made, warm_up_auc=[0.5, 0.8, 0.7], training_loss=curve))
    assert row == {
        "study": "main",
        "arm": "an arm",
        "repetition": 1,
        "key": cell.key,
        "reference": "dcn",
        "method": "distilled",
        "labels": "hard",
        "use": "inherit",
        "variant": "no-fusion",
        "ratio": RATIO,
        "candidate": "small",
        "network": "wukong",
        "parameters": 1_000,
        "seed": 3,
        "auc": 0.7,
        "logloss": 0.5,
        "diverged": False,
        "validation_auc": 0.6,
        "validation_logloss": 0.5,
        "taught_auc": pytest.approx(math.nan, nan_ok=True),
        "progressive_loss": pytest.approx((0.5 + 0.5 + 0.3) / 3),
        "trained_rows": cell.trained_rows,
        "warm_up_epochs": 2,
        "seconds": 1.5,
        "auc_task_0": 0.7,
        "auc_task_1": 0.7,
        "logloss_task_0": 0.5,
        "logloss_task_1": 0.5,
        **cell.protocol.model_dump(),
    }


@pytest.mark.parametrize(("parts", "last"), [(1, 1), (2, 1), (3, 1), (4, 2), (60, 20)])
def test_the_last_third_of_a_training_is_never_empty(
    prepared: Prepared, parts: int, last: int
) -> None:
    curve = [float(part) for part in range(parts)]
    result = replace(made_result(0.7), training_loss=curve)
    row = row_of(made_cell(prepared.run(), "cold"), result)
    assert row["progressive_loss"] == pytest.approx(np.mean(curve[-last:]))


@pytest.mark.parametrize("method", ["full", "cold", "warm"])
def test_what_a_method_does_not_have_is_left_empty(prepared: Prepared, method: str) -> None:
    row = row_of(made_cell(prepared.run(), method), made_result(0.7))
    assert math.isnan(float(str(row["ratio"])))
    assert row["labels"] == row["use"] == row["variant"] == ""
    assert row["reference"] == ("dcn" if method == "warm" else "")
    assert row["warm_up_epochs"] == 0


def test_a_taught_cell_is_scored_by_its_own_teachers_labels(
    prepared: Prepared, tmp_path: Path
) -> None:
    """The mean over a co-training's seeds; phi_1 stands for another repetition's reference."""
    run, blocks = prepared.run(), prepared.blocks
    shutil.copytree(reference_uri(run.config, 1), tmp_path / "other" / "t=2")
    other = prepared.run(reference={"folder": str(tmp_path / "other")})
    co_trained = replace(made_cell(run, "distilled"), protocol=run.config.evaluation.cotrain)
    warm = made_cell(run, "warm")
    results = [run_here(cell) for cell in (co_trained, warm)]
    cells = [
        StudyCell("fidelity", co_trained, "ours", 0, run),
        StudyCell("fidelity", co_trained, "ours", 1, other),
        StudyCell("fidelity", co_trained, "by its AUC"),
        StudyCell("fidelity", warm, "warm", 0, run),
    ]
    found = tidy.frame(cells, [results[0]] * 3 + results[1:])["taught_auc"].tolist()

    ids = read_block(blocks, blocks.block("validation")).ids
    uris = (reference_uri(run.config, 2), str(tmp_path / "other" / "t=2"))
    own, others = (predict(load_reference(uri).recommender, ids) for uri in uris)
    by_seed = read_validation_logits(co_trained)
    assert len(by_seed) == co_trained.protocol.seeds == 2
    expected = [np.mean([taught_auc(mine, labels) for mine in by_seed]) for labels in (own, others)]
    assert found[:2] == pytest.approx(expected)
    assert math.isnan(found[2])
    assert found[3] == pytest.approx(taught_auc(read_validation_logits(warm)[0], own))
    assert len(set(found)) == 4


def test_of_equally_good_epochs_the_last_one_was_kept(prepared: Prepared) -> None:
    result = replace(made_result(0.7), warm_up_auc=[0.5, 0.8, 0.6, 0.8, 0.7])
    assert row_of(made_cell(prepared.run(), "random"), result)["warm_up_epochs"] == 4


def test_a_cell_of_two_studies_has_two_rows(prepared: Prepared) -> None:
    cell = made_cell(prepared.run(), "warm")
    cells = [StudyCell(study, cell) for study in ("main", "transfer")]
    table = tidy.frame(cells, [made_result(0.7)] * 2)
    assert table["study"].tolist() == ["main", "transfer"]
    assert table["key"].tolist() == [cell.key] * 2
    assert list(table.columns[: len(tidy.COLUMNS)]) == tidy.COLUMNS
    assert list(table.columns[-5:]) == list(ProtocolConfig.model_fields)


def test_a_table_without_rows_has_its_columns() -> None:
    table = tidy.frame([], []).set_index("key")
    for made in (tables.comparison, tables.ratios, tables.transfer):
        assert made(table).empty
    assert tables.differences(table).empty
    assert tables.ablation(table, {}).empty


def test_the_table_is_published_as_parquet(prepared: Prepared, tmp_path: Path) -> None:
    cells = [StudyCell("main", made_cell(prepared.run(), m)) for m in ("full", "random")]
    table = tidy.frame(cells, [made_result(0.7, tasks=TASKS)] * 2)
    path = tmp_path / "folder" / "results.parquet"
    tidy.write(str(path), table)
    read = pq.read_table(path)
    assert read.column_names == list(table.columns)
    assert read["method"].to_pylist() == ["full", "random"]
    assert read["seed"].type == "int64"


def test_logits_are_read_by_key(prepared: Prepared) -> None:
    run = prepared.run()
    cells = [made_cell(run, "warm", seed) for seed in (0, 1)]
    for cell in cells:
        run_here(cell)
    logits = tidy.CellLogits([StudyCell(s, c) for s in ("main", "transfer") for c in cells])
    assert list(logits) == [cell.key for cell in cells]
    assert len(logits) == 2
    for cell in cells:
        assert np.array_equal(logits[cell.key], read_logits(cell))
